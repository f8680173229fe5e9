"""The heartbeats of a gang: every rank is polled all the time, so that silence and standstill show before Ray's own."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import ray
from ray import ObjectRef
from ray.exceptions import RayError

from cluster.waiting import arrived

LONGEST_PERIOD_S = 5.0
LEADER_PERIOD_S = 1.0  # rank 0 also reports the progress


@dataclass(frozen=True, kw_only=True)
class Heartbeat:
    """What a rank answers: its session's progress (0 to 1), `beats` and `overdue`; None while there is no session."""

    progress: float | None = None
    beats: int | None = None
    overdue: str | None = None


class Polled(Protocol):
    """A rank that can be asked for its heartbeat."""

    def poll(self) -> ObjectRef[Heartbeat]: ...


@dataclass(kw_only=True)
class RankStatus:
    """What is known of one rank; times are of time.monotonic()."""

    asked: float
    answered: float
    moved: float
    latest: Heartbeat = Heartbeat()
    pending: ObjectRef[Heartbeat] | None = None


class HeartbeatMonitor:
    """Polls each rank every few seconds; `silent`, `overdue` and `stands_still` say what is wrong, if anything is."""

    def __init__(self, workers: Sequence[Polled], *, silence_s: float, standstill_s: float):
        now = time.monotonic()
        self._workers = workers
        self.silence_s = silence_s
        self._standstill_s = standstill_s
        self._statuses = [RankStatus(asked=0.0, answered=now, moved=now) for _ in workers]

    @property
    def progress(self) -> float | None:
        """Of rank 0, as last reported."""
        return self._statuses[0].latest.progress

    def poll(self) -> None:
        """Takes the heartbeats that have come, and asks where it is time. Never waits."""
        now = time.monotonic()
        for rank, status in enumerate(self._statuses):
            if status.pending is not None and arrived([status.pending], timeout_s=0):
                _take(status, status.pending, now)
            if status.pending is None and now - status.asked >= self._period_s(rank):
                status.asked, status.pending = now, self._workers[rank].poll()

    def silent(self) -> list[int]:
        """The ranks that have not answered for too long: stopped, cut off, or their process does not get to run."""
        now = time.monotonic()
        waiting = [status.pending is not None and now - status.asked > self.silence_s for status in self._statuses]
        return [rank for rank, is_silent in enumerate(waiting) if is_silent]

    def overdue(self) -> str | None:
        """What a rank has waited for in vain, as it says itself: the first of them that does."""
        return next((status.latest.overdue for status in self._statuses if status.latest.overdue), None)

    def stands_still(self) -> bool:
        """Whether rank 0 answers, but its `beats` have not changed for too long."""
        leader = self._statuses[0]
        return leader.latest.beats is not None and leader.answered - leader.moved > self._standstill_s

    def _period_s(self, rank: int) -> float:
        period_s = min(LONGEST_PERIOD_S, self.silence_s / 4)
        return min(LEADER_PERIOD_S, period_s) if rank == 0 else period_s


def _take(status: RankStatus, answer: ObjectRef[Heartbeat], now: float) -> None:
    status.pending = None
    try:
        heartbeat = ray.get(answer)
    except RayError:  # A death shows in the rank's report, too, where it is dealt with.
        return
    status.answered = now
    if heartbeat.beats != status.latest.beats:
        status.moved = now
    status.latest = heartbeat
