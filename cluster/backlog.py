"""The backlog: the one queue that all gangs share. An item leaves it for good only with an outcome."""

import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from cluster.events import Outcome
from cluster.failure import FailureKind, RankError
from cluster.waiting import TICK_S, check_stop


@dataclass(frozen=True, kw_only=True)
class Job:
    """An item, its place in the batch and how often it has been started."""

    index: int
    item: Any
    attempts: int = 0


class Backlog:
    """Hands out each item to one gang at a time; safe for threads."""

    def __init__(self, items: Iterable[Any]):
        jobs = [Job(index=index, item=item) for index, item in enumerate(items)]
        self._waiting = deque(jobs)
        self._open = {job.index: job for job in jobs}
        self._outcomes: dict[int, Outcome] = {}
        self._changed = threading.Condition()

    def __len__(self) -> int:
        """How many items have no outcome yet."""
        return len(self._open)

    def is_worth_staying(self, stop: threading.Event) -> bool:
        """True when an item waits; False when every item has its outcome. Until either holds, blocks.

        An item that another gang is running may yet come back. Raises Stopped when the flag is set.
        """
        with self._changed:
            while self._open and not self._waiting:
                check_stop(stop)
                self._changed.wait(TICK_S)
            check_stop(stop)
            return bool(self._open)

    def take(self) -> Job | None:
        """The next job, its attempt counted; None if another gang was quicker."""
        with self._changed:
            if not self._waiting:
                return None
            job = self._waiting.popleft()
            return replace(job, attempts=job.attempts + 1)

    def put_back(self, job: Job) -> None:
        """Makes the job the next one to be taken, by whichever gang is free first."""
        with self._changed:
            self._waiting.appendleft(job)
            self._open[job.index] = job
            self._changed.notify_all()

    def finish(self, job: Job, outcome: Outcome) -> None:
        with self._changed:
            self._outcomes[job.index] = outcome
            del self._open[job.index]
            self._changed.notify_all()

    def give_up(self, error: RankError) -> list[Job]:
        """Fails whatever has no outcome, for want of a gang; returns those jobs in order."""
        jobs = [self._open[index] for index in sorted(self._open)]
        for job in jobs:
            outcome = Outcome(item=job.item, attempts=job.attempts, error=error.summary, failure=FailureKind.START)
            self.finish(job, outcome)
        return jobs

    def outcomes(self) -> list[Outcome]:
        """One for each item, in the order of the items."""
        return [self._outcomes[index] for index in sorted(self._outcomes)]
