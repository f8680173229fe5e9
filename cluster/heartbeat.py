"""The heartbeats of a gang: every rank is asked all the time, so that silence and standstill show before Ray's own."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError

LONGEST_PERIOD_S = 5.0
LEADER_PERIOD_S = 1.0  # rank 0 also tells the progress


@dataclass(frozen=True, kw_only=True)
class Beat:
    """What a rank answers: its session's progress (0 to 1) and a count of what it has done, where it tells them."""

    progress: float | None = None
    count: int | None = None


@dataclass(kw_only=True)
class Vital:
    """What is known of one rank; times are of time.monotonic()."""

    asked: float
    answered: float
    moved: float
    beat: Beat = Beat()
    question: Any = None


class Pulse:
    """Asks each rank for a beat every few seconds; `look` says what is wrong, if anything is."""

    def __init__(self, workers: Sequence[Any], *, silence_s: float, standstill_s: float):
        now = time.monotonic()
        self._workers = workers
        self.silence_s = silence_s
        self._standstill_s = standstill_s
        self._vitals = [Vital(asked=0.0, answered=now, moved=now) for _ in workers]

    @property
    def progress(self) -> float | None:
        """Of rank 0, as last told."""
        return self._vitals[0].beat.progress

    def look(self) -> None:
        """Takes the answers that have come, and asks where it is time. Never waits."""
        now = time.monotonic()
        for rank, vital in enumerate(self._vitals):
            if vital.question is not None:
                self._take_answer(vital, now)
            if vital.question is None and now - vital.asked >= self._period_s(rank):
                vital.asked, vital.question = now, self._workers[rank].poll.remote()

    def silent(self) -> list[int]:
        """The ranks that have not answered for too long: stopped, cut off, or their process does not get to run."""
        now = time.monotonic()
        waiting = [vital.question is not None and now - vital.asked > self.silence_s for vital in self._vitals]
        return [rank for rank, is_silent in enumerate(waiting) if is_silent]

    def stands_still(self) -> bool:
        """Whether rank 0 answers, but what it counts has not changed for too long."""
        leader = self._vitals[0]
        return leader.beat.count is not None and leader.answered - leader.moved > self._standstill_s

    def _period_s(self, rank: int) -> float:
        period_s = min(LONGEST_PERIOD_S, self.silence_s / 4)
        return min(LEADER_PERIOD_S, period_s) if rank == 0 else period_s

    def _take_answer(self, vital: Vital, now: float) -> None:
        if not ray.wait([vital.question], timeout=0)[0]:
            return
        question, vital.question = vital.question, None
        try:
            beat: Beat = ray.get(question)  # pyright: ignore[reportAssignmentType]
        except RayError:  # A death shows in the rank's report, too, where it is dealt with.
            return
        vital.answered = now
        if beat.count != vital.beat.count:
            vital.moved = now
        vital.beat = beat
