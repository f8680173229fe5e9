"""When a denoising step is dense: the first axis of a recipe."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Protocol, Self

from caching.recipe.settings import Settings
from caching.state_dict import StateDict, Stateful


@dataclass(frozen=True, kw_only=True)
class Signals:
    """What a decision can look at, each computed only if asked for; None where there are no values (meta device)."""

    input_change: Callable[[], float | None]
    """Relative change of the blocks' input since the last step."""
    error: Callable[[], float | None]
    """What this step would add to the error of the latents if it were sparse, in units of the velocity."""


NO_SIGNALS = Signals(input_change=lambda: None, error=lambda: None)


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
    estimates_error: ClassVar[bool] = False
    """Whether it has to know how wrong an extrapolation is."""

    @property
    def has_sparse_steps(self) -> bool:
        return True

    def num_steps(self, asked: int) -> int:
        """The steps that are sampled where `asked` would be without a method."""
        return asked

    def fitted(self, published: tuple[float, ...] | None) -> Self:
        """The same for a model, given the polynomial that was published for it, if any."""
        return self


def _check_every(every: int) -> None:
    if every < 1:
        raise ValueError(f"interval must be at least 1, not {every}")


@dataclass(frozen=True, kw_only=True)
class Interval(ScheduleSettings):
    """One dense step, then `every - 1` sparse ones (the interval N of FORA, TaylorSeer and ResCa).

    The `first` steps are all dense, the last of them begins the first interval; so are the `last` ones.
    """

    kind: Literal["interval"] = "interval"
    every: int = 6
    first: int = 1
    last: int = 0

    def __post_init__(self) -> None:
        _check_every(self.every)
        if self.first < 1 or self.last < 0:
            raise ValueError(f"first must be at least 1 and last at least 0, not {self.first} and {self.last}")

    @property
    def has_sparse_steps(self) -> bool:
        return self.every > 1

    @property
    def options(self) -> Mapping[str, str]:
        return {"interval": "every"} if self.every > 1 else {}

    def start(self, num_steps: int) -> Clock:
        """The clock of a generation."""
        since = [step - (self.first - 1) for step in range(num_steps)]
        ends = num_steps - self.last
        return FixedClock(tuple(n <= 0 or n % self.every == 0 or step >= ends for step, n in enumerate(since)))


@dataclass(frozen=True, kw_only=True)
class FewerSteps(ScheduleSettings):
    """No cache, but longer steps: as few as `Interval` would make dense."""

    kind: Literal["fewer_steps"] = "fewer_steps"
    every: int = 6

    def __post_init__(self) -> None:
        _check_every(self.every)

    @property
    def has_sparse_steps(self) -> bool:
        return False

    @property
    def options(self) -> Mapping[str, str]:
        return {"interval": "every"} if self.every > 1 else {}

    def num_steps(self, asked: int) -> int:
        return -(-asked // self.every)

    def start(self, num_steps: int) -> Clock:
        return FixedClock((True,) * num_steps)


@dataclass(frozen=True, kw_only=True)
class Places(ScheduleSettings):
    """Dense steps wherever they are wanted, counted from 0; the first step is one whether named or not.

    `steps`, if given, is the number of steps that the places are meant for; others are refused.
    """

    kind: Literal["places"] = "places"
    dense: tuple[int, ...]
    steps: int | None = None

    def __post_init__(self) -> None:
        if any(step < 0 for step in self.dense):
            raise ValueError(f"dense steps are counted from 0, not {min(self.dense)}")

    def start(self, num_steps: int) -> Clock:
        if self.steps not in (None, num_steps):
            raise ValueError(f"these dense steps were chosen for {self.steps} steps, not {num_steps}")
        return FixedClock(tuple(step == 0 or step in self.dense for step in range(num_steps)))


@dataclass(frozen=True, kw_only=True)
class Until(ScheduleSettings):
    """Dense up to a `part` of sampling, 0 to 1, then sparse to the end (T-GATE's gate)."""

    kind: Literal["until"] = "until"
    part: float = 0.4

    def __post_init__(self) -> None:
        if not 0 < self.part <= 1:
            raise ValueError(f"part must be above 0 and at most 1, not {self.part}")

    def start(self, num_steps: int) -> Clock:
        gate = max(1, round(self.part * num_steps))
        return FixedClock(tuple(step < gate for step in range(num_steps)))


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
    """What has been added up since the last dense step."""

    total = 0.0

    def state_dict(self) -> StateDict:
        return {"total": self.total}

    def load_state_dict(self, state: StateDict) -> None:
        self.total = state["total"]


class InputChangeClock(RunningTotal):
    """TeaCache's running sum."""

    def __init__(self, schedule: InputChange, num_steps: int) -> None:
        self.schedule, self.num_steps = schedule.fitted(None), num_steps

    def is_dense(self, step: int, signals: Signals) -> bool:
        now = signals.input_change()
        if now is None:
            return step % self.schedule.typical == 0
        for power, factor in enumerate(reversed(self.schedule.rescale or ())):
            self.total += factor * now**power
        if step in (0, self.num_steps - 1) or self.total >= self.schedule.threshold:
            self.total = 0.0
            return True
        return False

    def may_be_sparse_after(self, step: int) -> bool:
        return step < self.num_steps - 2


@dataclass(frozen=True, kw_only=True)
class ErrorEstimate(ScheduleSettings):
    """Dense when what the sparse steps since the last dense one add to the latents' error would exceed `tolerance`.

    A dense step shows how wrong the extrapolation to it would have been, and so do proxies in between; from there the
    error grows with the power `order + 1` of the distance. The last step is dense: with a shifted schedule it is the
    longest. Where there are no values, every `typical`-th step is dense.
    """

    goes_by_values: ClassVar[bool] = True
    estimates_error: ClassVar[bool] = True
    kind: Literal["error_estimate"] = "error_estimate"
    tolerance: float = 0.003
    typical: int = 4

    def __post_init__(self) -> None:
        if not self.tolerance > 0:
            raise ValueError(f"tolerance must be above 0, not {self.tolerance}")

    @property
    def options(self) -> Mapping[str, str]:
        return {"tolerance": "tolerance"}

    def start(self, num_steps: int) -> Clock:
        return ErrorClock(self, num_steps)


class ErrorClock(RunningTotal):
    """The errors since the last dense step."""

    def __init__(self, schedule: ErrorEstimate, num_steps: int) -> None:
        self.schedule, self.num_steps = schedule, num_steps

    def is_dense(self, step: int, signals: Signals) -> bool:
        error = signals.error()
        if error is None:
            return step % self.schedule.typical == 0
        self.total += error
        if step in (0, self.num_steps - 1) or self.total >= self.schedule.tolerance:
            self.total = 0.0
            return True
        return False

    def may_be_sparse_after(self, step: int) -> bool:
        return step < self.num_steps - 2


Schedule = Interval | FewerSteps | Places | Until | InputChange | ErrorEstimate
