"""Schedules that decide by what they see as they go."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from caching.recipe.clock import Clock, ScheduleSettings, Signals
from caching.state_dict import StateDict


@dataclass(frozen=True, kw_only=True)
class InputChange(ScheduleSettings):
    """Dense when the blocks' input has changed enough since the last dense step (TeaCache).

    The relative change of each step, rescaled by a polynomial, is added up until it passes `threshold`. The first and
    the last step are dense. TeaCache fits `rescale` (highest power first) to each model; None is its published fit
    for the full-size models that have one, and the identity for others. Where there are no values, on the meta device,
    every `typical`-th step is dense.
    """

    goes_by_values: ClassVar[bool] = True
    kind: Literal["input_change"] = "input_change"
    threshold: float = 0.15
    rescale: tuple[float, ...] | None = None
    typical: int = 3

    def __post_init__(self) -> None:
        if not self.threshold > 0:
            raise ValueError(f"threshold must be above 0, not {self.threshold}")

    @property
    def options(self) -> Mapping[str, str]:
        return {"threshold": "threshold"}

    def start(self, num_steps: int) -> Clock:
        return InputChangeClock(self, num_steps)

    def fitted(self, published: tuple[float, ...] | None) -> Self:
        """The same with a polynomial: its own, or else the model's, or else the identity."""
        return replace(self, rescale=self.rescale or published or (1.0, 0.0))


class RunningTotal:
    """Changes that are added up since the last dense step, until they reach a threshold; the last step is dense."""

    def __init__(self, num_steps: int, threshold: float) -> None:
        self.num_steps, self.threshold, self.total = num_steps, threshold, 0.0

    def reaches(self, change: float, step: int, *, first: int) -> bool:
        """Whether a step is dense, as the `first` ones are, that adds so much."""
        self.total += change
        if step < first or step == self.num_steps - 1 or self.total >= self.threshold:
            self.total = 0.0
            return True
        return False

    def may_be_sparse_after(self, step: int) -> bool:
        return step < self.num_steps - 2

    def state_dict(self) -> StateDict:
        return {"total": self.total}

    def load_state_dict(self, state: StateDict) -> None:
        self.total = state["total"]


class InputChangeClock(RunningTotal):
    """TeaCache's running sum."""

    def __init__(self, schedule: InputChange, num_steps: int) -> None:
        super().__init__(num_steps, schedule.threshold)
        self.schedule = schedule.fitted(None)

    def is_dense(self, step: int, signals: Signals) -> bool:
        now = signals.input_change()
        if now is None:
            return step % self.schedule.typical == 0
        rescaled = sum(factor * now**power for power, factor in enumerate(reversed(self.schedule.rescale or ())))
        return self.reaches(rescaled, step, first=1)


@dataclass(frozen=True, kw_only=True)
class OutputChange(ScheduleSettings):
    """Dense when the output is expected to have changed enough since the last dense step (EasyCache).

    The relative changes of all steps since are added up until they reach `threshold`; each is told from the change of
    the latents, and from how the output has changed with them between the last two dense steps. The `first` steps and
    the last one are dense. Where there are no values, so is every `typical`-th step after the first ones.
    """

    goes_by_values: ClassVar[bool] = True
    watches_output: ClassVar[bool] = True
    kind: Literal["output_change"] = "output_change"
    threshold: float = 0.05
    first: int = 5
    typical: int = 3

    def __post_init__(self) -> None:
        if not self.threshold > 0 or self.first < 1:
            raise ValueError(f"threshold must be above 0 and first at least 1, not {self.threshold} and {self.first}")

    @property
    def options(self) -> Mapping[str, str]:
        return {"threshold": "threshold"}

    def start(self, num_steps: int) -> Clock:
        return OutputChangeClock(self, num_steps)


class OutputChangeClock(RunningTotal):
    """EasyCache's running sum."""

    def __init__(self, schedule: OutputChange, num_steps: int) -> None:
        super().__init__(num_steps, schedule.threshold)
        self.schedule = schedule

    def is_dense(self, step: int, signals: Signals) -> bool:
        change, since = signals.output_change(), step - (self.schedule.first - 1)
        if change is None:
            return since <= 0 or since % self.schedule.typical == 0
        return self.reaches(change, step, first=self.schedule.first)
