"""The heartbeats of a gang: every rank is polled all the time, so that silence and standstill show before Ray's own.

A poll takes half a millisecond of the driver's processor, more than all else that it does for a rank: a fleet of a
thousand ranks is polled no more often than it has to be.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import ray
from ray import ObjectRef
from ray.exceptions import RayError

from cluster.waiting import Pace, arrived

# Rank 0 also reports the progress; all are asked some times before they count as silent.
LEADER = Pace(least_s=2.0, most_s=10.0)
POLLS_OF_A_SILENCE = 4
# Gangs whose first ranks are asked so often; of more, each is asked the more seldom.
GANGS = 32


def pace_of(num_gangs: int) -> Pace:
    """How often rank 0 of each gang is asked."""
    times = max(1.0, num_gangs / GANGS)
    return Pace(least_s=times * LEADER.least_s, most_s=times * LEADER.most_s)


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
    """What is known of one rank; times are of the monitor's clock."""

    asked: float
    answered: float
    moved: float
    latest: Heartbeat = Heartbeat()
    pending: ObjectRef[Heartbeat] | None = None


class HeartbeatMonitor:
    """Polls each rank as often as it has to; `silent`, `overdue` and `stands_still` say what is wrong, if anything."""

    def __init__(
        self,
        workers: Sequence[Polled],
        *,
        silence_s: float,
        standstill_s: float,
        pace: Pace = LEADER,
        clock: Callable[[], float] = time.monotonic,
    ):
        now = clock()
        self._workers, self._pace, self._clock = workers, pace, clock
        self.silence_s = silence_s
        self._standstill_s = standstill_s
        self._began = now
        self._statuses = [RankStatus(asked=now, answered=now, moved=now) for _ in workers]

    @property
    def progress(self) -> float | None:
        """Of rank 0, as last reported."""
        return self._statuses[0].latest.progress

    @property
    def pending(self) -> list[ObjectRef[Heartbeat]]:
        """The heartbeats that were asked for, and have not been taken."""
        return [status.pending for status in self._statuses if status.pending is not None]

    @property
    def wait_s(self) -> float:
        """Until there is something to do, if none of those comes before."""
        return max(0.0, min(map(self._due_s, range(len(self._statuses)))) - self._clock())

    def poll(self) -> None:
        """Takes the heartbeats that have come, and asks where it is time. Never waits."""
        now, pending = self._clock(), self.pending
        ready = arrived(pending, timeout_s=0) if pending else []
        for rank, status in enumerate(self._statuses):
            if status.pending is not None and status.pending in ready:
                _take(status, status.pending, now)
            if status.pending is None and self._due_s(rank) <= now:
                status.asked, status.pending = now, self._workers[rank].poll()

    def silent(self) -> list[int]:
        """The ranks that have not answered for too long: stopped, cut off, or their process does not get to run."""
        now = self._clock()
        waiting = [status.pending is not None and now - status.asked > self.silence_s for status in self._statuses]
        return [rank for rank, is_silent in enumerate(waiting) if is_silent]

    def overdue(self) -> str | None:
        """What a rank has waited for in vain, as it says itself: the first of them that does."""
        return next((status.latest.overdue for status in self._statuses if status.latest.overdue), None)

    def stands_still(self) -> bool:
        """Whether rank 0 answers, but its `beats` have not changed for too long."""
        leader = self._statuses[0]
        return leader.latest.beats is not None and leader.answered - leader.moved > self._standstill_s

    def _due_s(self, rank: int) -> float:
        """When it is to be asked, or, while it has not answered, counts as silent."""
        status, leader, period_s = self._statuses[rank], self._statuses[0], self.silence_s / POLLS_OF_A_SILENCE
        if status.pending is not None:
            return status.asked + self.silence_s
        if rank == 0:
            return status.asked + min(self._pace.period_s(status.asked - self._began), period_s)
        # While rank 0 gets on, so do those that it works with.
        return max(status.asked, leader.moved) + period_s


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
