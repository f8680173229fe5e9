"""The backlog: the one queue that all gangs share. An item leaves it for good only with an outcome."""

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Hashable, Iterable
from dataclasses import replace
from typing import Generic

from cluster.events import Outcome
from cluster.failure import RankError
from cluster.job import Job
from cluster.session import Item, Result
from cluster.waiting import TICK_S, check_stop


class Backlog(Generic[Item, Result]):
    """Hands out each item to one gang at a time; safe for threads.

    Those of the highest priority come first. Of these the costliest do, so that no long one is left for the end, where
    the other gangs would have to wait for it; those that cost the same come in their order. What has failed before
    comes when its backoff is over, before the rest.

    Gangs stay at one that `may_grow` until it is closed: until then jobs can be added. `clock` is that of
    `Job.not_before`.
    """

    def __init__(
        self,
        jobs: Iterable[Job[Item]] = (),
        *,
        may_grow: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._clock = clock
        self._fresh: dict[Hashable, deque[Job[Item]]] = defaultdict(deque)
        self._again: list[Job[Item]] = []
        self._open: dict[int, Job[Item]] = {}
        self._outcomes: dict[int, Outcome[Item, Result]] = {}
        self._changed = threading.Condition()
        self._may_grow = may_grow
        self.keeps_gangs = True
        """Whether gangs that have nothing to do are needed for what may be added."""
        self.add(jobs)

    def __len__(self) -> int:
        """How many items have no outcome yet."""
        return len(self._open)

    @property
    def is_over(self) -> bool:
        """Whether every item has its outcome, and none will be added."""
        return not self._open and not self._may_grow

    def add(self, jobs: Iterable[Job[Item]]) -> None:
        """Jobs with indices of their own."""
        with self._changed:
            shapes = set()
            for job in jobs:
                self._fresh[job.shape].append(job)
                self._open[job.index] = job
                shapes.add(job.shape)
            for shape in shapes:
                self._fresh[shape] = deque(sorted(self._fresh[shape], key=_order))
            self._changed.notify_all()

    def withdraw(self, belongs: Callable[[Item], bool]) -> list[Job[Item]]:
        """Takes out the jobs of these items that no gang is running; they have no outcome."""
        with self._changed:
            waiting = [job for jobs in (*self._fresh.values(), self._again) for job in jobs if belongs(job.item)]
            for job in waiting:
                self._remove(job)
                del self._open[job.index]
            self._changed.notify_all()
        return waiting

    def close(self) -> None:
        """Nothing will be added any more."""
        with self._changed:
            self._may_grow = False
            self._changed.notify_all()

    @property
    def is_running_out(self) -> bool:
        """Whether gangs are running all that is left, and need not wait for what may be added."""
        with self._changed:
            return not (self._again or self._fresh or (self._may_grow and self.keeps_gangs))

    def is_worth_staying(self, stop: threading.Event, wake: Callable[[], bool] = lambda: False) -> bool:
        """True when an item waits, or `wake` says so; False when the backlog is over. Until then, blocks.

        An item that another gang is running may yet come back. Raises Stopped when the flag is set.
        """
        with self._changed:
            while not self.is_over and not self._next() and not wake():
                check_stop(stop)
                self._changed.wait(TICK_S)
            check_stop(stop)
            return not self.is_over

    def take(self, shape: Hashable = None) -> Job[Item] | None:
        """The next job, its attempt counted, of those that are urgent if possible of this shape.

        None if another gang was quicker.
        """
        with self._changed:
            job = self._next(shape)
            if job is None:
                return None
            self._remove(job)
            return replace(job, attempts=job.attempts + 1)

    def put_back(self, job: Job[Item]) -> None:
        """Makes the job one of the next to be taken, once its backoff is over."""
        with self._changed:
            self._again.append(job)
            self._open[job.index] = job
            self._changed.notify_all()

    def finish(self, job: Job[Item], outcome: Outcome[Item, Result]) -> None:
        with self._changed:
            self._outcomes[job.index] = outcome
            del self._open[job.index]
            self._changed.notify_all()

    def give_up(self, error: RankError) -> list[Job[Item]]:
        """Ends whatever has no outcome, for want of a gang; returns those jobs in order."""
        jobs = [self._open[index] for index in sorted(self._open)]
        for job in jobs:
            self.finish(job, Outcome.of_failure(job, error, was_left=True))
        return jobs

    def take_outcomes(self) -> list[Outcome[Item, Result]]:
        """One for each item that has one and was not taken before, in the order of the items."""
        with self._changed:
            taken, self._outcomes = self._outcomes, {}
        return [taken[index] for index in sorted(taken)]

    def _next(self, shape: Hashable = None) -> Job[Item] | None:
        now = self._clock()
        due = next((job for job in self._again if job.not_before <= now), None)
        if due is not None or not self._fresh:
            return due
        first = min((jobs[0] for jobs in self._fresh.values()), key=_order)
        alike = self._fresh[shape][0] if shape is not None and shape in self._fresh else first
        return alike if alike.priority == first.priority else first

    def _remove(self, job: Job[Item]) -> None:
        if job in self._again:
            self._again.remove(job)
            return
        jobs = self._fresh[job.shape]
        jobs.remove(job)
        if not jobs:
            del self._fresh[job.shape]


def _order(job: Job[Item]) -> tuple[int, float, int]:
    return -job.priority, -job.cost, job.index
