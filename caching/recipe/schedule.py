"""When a denoising step is dense: the first axis of a recipe."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import lcm
from typing import Literal, Self

from caching.recipe.by_values import InputChange, OutputChange
from caching.recipe.clock import Clock, FixedClock, ScheduleSettings
from caching.recipe.settings import OptionValue


def _check_every(every: int) -> None:
    if every < 1:
        raise ValueError(f"interval must be at least 1, not {every}")


@dataclass(frozen=True, kw_only=True)
class Regular(ScheduleSettings):
    """One dense step, then `every - 1` sparse ones.

    The `first` steps are all dense, the last of them begins the first interval; so are the `last` ones.
    """

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
        return FixedClock(tuple(self.begins(step, num_steps, self.every) for step in range(num_steps)))

    def begins(self, step: int, num_steps: int, every: int) -> bool:
        """Whether a step begins one of the intervals of `every` steps, or is one of the first or the last."""
        since = step - (self.first - 1)
        return since <= 0 or since % every == 0 or step >= num_steps - self.last


@dataclass(frozen=True, kw_only=True)
class Interval(Regular):
    """The interval N of FORA, TaylorSeer and ResCa."""

    kind: Literal["interval"] = "interval"


@dataclass(frozen=True, kw_only=True)
class Broadcast(Regular):
    """Attention is computed every so many steps, and not equally often where a model has several kinds (PAB).

    `every` is for attention in space, or to all tokens; in models that attend in space and in time by turns `time` is
    for attention in time, and `text` for that to the text. Steps that begin an interval of `every` count as dense.
    """

    kind: Literal["broadcast"] = "broadcast"
    every: int = 2
    time: int = 4
    text: int = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_every(self.time)
        _check_every(self.text)

    def with_option(self, option: str, value: OptionValue) -> Self:
        """With another interval the others grow along, as in PAB's own 246, 357 and 579."""
        changed = super().with_option(option, value)
        return replace(changed, time=changed.every + 2, text=changed.every + 4)

    def phase(self, step: int, num_steps: int) -> int:
        since = step - (self.first - 1)
        if since <= 0 or step >= num_steps - self.last:
            return 0
        return since % lcm(self.every, self.time, self.text)


@dataclass(frozen=True, kw_only=True)
class Even(ScheduleSettings):
    """As many dense steps as an interval of `every` begins, at even distances from the first step to the last but one.

    What the steps behind the last dense one miss, nothing makes good any more: so there is at most one, wherever the
    intervals would end. Where steps are a multiple of `every`, and two more, both are the same.
    """

    kind: Literal["even"] = "even"
    every: int = 6

    def __post_init__(self) -> None:
        _check_every(self.every)

    @property
    def has_sparse_steps(self) -> bool:
        return self.every > 1

    @property
    def options(self) -> Mapping[str, str]:
        return {"interval": "every"} if self.every > 1 else {}

    def start(self, num_steps: int) -> Clock:
        """The clock of a generation."""
        dense = set(even_places(num_steps, -(-num_steps // self.every)))
        return FixedClock(tuple(step in dense for step in range(num_steps)))


def even_places(num_steps: int, budget: int) -> tuple[int, ...]:
    """`budget` of the steps, at even distances from the first to the last but one, or where all are asked for the last.

    ValueError if there are not so many.
    """
    if not 1 <= budget <= num_steps:
        raise ValueError(f"between 1 and {num_steps} of {num_steps} steps can be dense, not {budget}")
    last = max(num_steps - 2, budget - 1)
    return tuple(int(number * last / max(1, budget - 1) + 0.5) for number in range(budget))


@dataclass(frozen=True, kw_only=True)
class GrowingInterval(ScheduleSettings):
    """Intervals that grow: the first has `every` steps, each `growth` more than the last, less a fraction (Spectrum).

    The `first` steps are all dense, the last of them begins the first interval.
    """

    kind: Literal["growing_interval"] = "growing_interval"
    every: int = 2
    growth: float = 0.75
    first: int = 5

    def __post_init__(self) -> None:
        _check_every(self.every)
        if self.first < 1 or not self.growth >= 0:
            raise ValueError(f"first must be at least 1 and growth at least 0, not {self.first} and {self.growth}")

    def start(self, num_steps: int) -> Clock:
        dense, place = set(range(self.first)), self.first - 1
        for number in range(num_steps):
            place += int(self.every + number * self.growth)
            dense.add(place)
        return FixedClock(tuple(step in dense for step in range(num_steps)))


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


Schedule = Interval | Broadcast | Even | GrowingInterval | FewerSteps | Places | Until | InputChange | OutputChange
