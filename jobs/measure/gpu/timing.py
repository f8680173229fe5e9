"""Seconds of denoising steps, and how many steps must run for them to be known."""

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import torch

from jobs.measure.full_size import DTYPE

MATMUL_SIDE = {"cuda": 8192, "cpu": 512}
MATMUL_S = {"cuda": 1.0, "cpu": 0.1}  # on a CPU the command is only tried
MATMUL_REPEATS = 10  # from one wait to the next
STRETCH = 8


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step, its kind and its seconds; those of clustering are part of them."""

    dense: bool
    seconds: float
    clustering_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Timing:
    """The first steps of a denoising loop, and the memory that they took; None where it cannot be known."""

    steps: tuple[Step, ...]
    num_warm_up: int  # of the steps, which count only where there are no others of their kind
    peak_bytes: int | None = None
    cache_bytes: int | None = None

    @property
    def measured(self) -> tuple[Step, ...]:
        """The steps after the warm-up."""
        return self.steps[self.num_warm_up :]

    def step_s(self, *, dense: bool) -> float | None:
        """Seconds of a step of one kind; None if there is none.

        They are medians of the steps as far from the last dense one, averaged, for sparse steps may take turns.
        """
        places = places_since_dense([step.dense for step in self.steps])
        timed = list(zip(places, self.steps, strict=True))
        of_kind = [each for each in timed[self.num_warm_up :] if each[1].dense is dense]
        of_kind = of_kind or [each for each in timed if each[1].dense is dense]
        seconds: dict[int, list[float]] = {}
        for place, step in of_kind:
            seconds.setdefault(place, []).append(step.seconds)
        return statistics.mean(map(statistics.median, seconds.values())) if seconds else None

    def num_measured(self, *, dense: bool) -> int:
        """The steps of one kind after the warm-up."""
        return sum(step.dense is dense for step in self.measured)

    @property
    def clustering_s(self) -> float | None:
        """Median seconds of clustering in a dense step; None for a method without."""
        seconds = [step.clustering_s for step in self.measured if step.clustering_s]
        return statistics.median(seconds) if seconds else None

    @property
    def total_s(self) -> float:
        """Seconds of all steps that were run."""
        return sum(step.seconds for step in self.steps)


def places_since_dense(plan: Sequence[bool]) -> list[int]:
    """Of each step of a plan, with True for dense steps, how many there were since the last dense one."""
    return list(accumulate(plan, lambda place, dense: 0 if dense else place + 1, initial=-1))[1:]


def warm_up(plan: Sequence[bool], *, rounds: int = 1) -> int:
    """The steps that pay first-time costs: those before dense step number `rounds`, counted from 0.

    Proxies are first clustered in dense step 1, and computed after it.
    """
    later = [step for step in range(1, len(plan)) if plan[step]]
    return [1, *later][: rounds + 1][-1]


def steps_to_run(plan: Sequence[bool], first: int, *, dense: int, sparse: int) -> int:
    """How many steps of a plan contain so many dense and sparse ones from `first` on, or all that there are.

    The sparse steps up to the next dense one are among them, too, or STRETCH of them.
    """
    wanted = {True: dense, False: sparse}
    places = {kind: [step for step in range(first, len(plan)) if plan[step] is kind] for kind in wanted}
    least = 1 + max((step for kind in wanted for step in places[kind][: wanted[kind]][-1:]), default=first - 1)
    ends = (step for step in range(least, len(plan)) if plan[step] or step == least + STRETCH)
    return next(ends, len(plan))


def synchronize(device: torch.device) -> None:
    """Wait for what was launched."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matmul_flops_per_s(device: torch.device) -> float:
    """What the device reaches on a large product of square bfloat16 matrices.

    It is repeated for as long as it takes a GPU to settle at the clock that it keeps under load.
    """
    side = MATMUL_SIDE[device.type]
    left, right = (torch.randn(side, side, device=device, dtype=DTYPE) for _ in range(2))

    def repeat() -> None:
        for _ in range(MATMUL_REPEATS):
            torch.matmul(left, right)
        synchronize(device)

    repeat()
    rounds, started = 0, time.perf_counter()
    while (seconds := time.perf_counter() - started) < MATMUL_S[device.type]:
        repeat()
        rounds += 1
    return rounds * MATMUL_REPEATS * 2 * side**3 / seconds


class Budget:
    """The minutes that a run may take."""

    def __init__(self, minutes: float) -> None:
        self.end = time.perf_counter() + 60 * minutes

    @property
    def left_s(self) -> float:
        return self.end - time.perf_counter()
