"""What decides which steps are dense, and what every schedule has."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

from caching.recipe.settings import Settings
from caching.state_dict import StateDict, Stateful


@dataclass(frozen=True, kw_only=True)
class Signals:
    """What a decision can look at, each computed only if asked for; None where there are no values (meta device)."""

    input_change: Callable[[], float | None]
    """Relative change of the blocks' input since the last step."""
    output_change: Callable[[], float | None]
    """Relative change of the output since the last step, expected from that of the latents."""


NO_SIGNALS = Signals(input_change=lambda: None, output_change=lambda: None)


class Clock(Stateful, Protocol):
    """One generation's decisions, asked for step by step."""

    def is_dense(self, step: int, signals: Signals) -> bool:
        """Whether every token is computed in this step; step 0 always is dense."""
        ...

    def may_be_sparse_after(self, step: int) -> bool:
        """Whether a later step may need what a dense one keeps."""
        ...


@dataclass(frozen=True)
class FixedClock:
    """Decisions known beforehand."""

    dense: tuple[bool, ...]

    def is_dense(self, step: int, signals: Signals) -> bool:
        return self.dense[step]

    def may_be_sparse_after(self, step: int) -> bool:
        return not all(self.dense[step + 1 :])

    def state_dict(self) -> StateDict:
        return {}

    def load_state_dict(self, state: StateDict) -> None:
        """Decisions known beforehand have no state."""


class ScheduleSettings(Settings):
    """What every schedule has."""

    goes_by_values: ClassVar[bool] = False
    """Whether it decides by what it sees as it goes."""
    watches_output: ClassVar[bool] = False
    """Whether it has to know how the output changes with the latents."""

    @property
    def has_sparse_steps(self) -> bool:
        return True

    def num_steps(self, asked: int) -> int:
        """The steps that are sampled where `asked` would be without a method."""
        return asked

    def phase(self, step: int, num_steps: int) -> int:
        """Steps that are alike in what they compute, if they are both dense or both sparse, have the same."""
        return 0

    def fitted(self, published: tuple[float, ...] | None) -> Self:
        """The same for a model, given the polynomial that was published for it, if any."""
        return self
