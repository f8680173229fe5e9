"""Waiting for Ray with a deadline and a stop flag, so that a driver's thread never blocks for good."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import ray
from ray import ObjectRef

TICK_S = 0.2
Value = TypeVar("Value")


class Stopped(Exception):
    """The batch is being torn down; whoever waits lets go of what it holds."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How often to look at what takes its time: the more seldom, the longer it has been under way."""

    least_s: float
    most_s: float

    def period_s(self, elapsed_s: float) -> float:
        """Seconds from one look to the next: as many as have passed so far, within the bounds."""
        return min(self.most_s, max(self.least_s, elapsed_s))


# At what Ray is asked to do: what has come is taken at once, but the stop flag and the deadline are looked at so often.
LOOK = Pace(least_s=TICK_S, most_s=1.5)


class Deadline:
    """How long the steps of one piece of work may take together."""

    def __init__(self, timeout_s: float, stop: threading.Event | None = None):
        self._timeout_s = timeout_s
        self._began = time.monotonic()
        self._stop = stop or threading.Event()

    def collect(
        self,
        refs: Sequence[ObjectRef[Value]],
        check: Callable[[Value], None] = lambda value: None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> list[Value]:
        """The values of all `refs`, in order; `check` sees each soon after it is there, `meanwhile` is called as often.

        Raises what the first failing one, `check` or `meanwhile` raises as soon as it does, TimeoutError at the
        deadline, and Stopped when the stop flag is set.
        """
        waiting = list(refs)
        while waiting:
            self._check()
            ready = arrived(waiting, LOOK.period_s(self._elapsed_s))
            waiting = [ref for ref in waiting if ref not in ready]
            for value in ray.get(ready):
                check(value)
            meanwhile()
        return ray.get(list(refs))

    @property
    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def _check(self) -> None:
        check_stop(self._stop)
        if self._elapsed_s > self._timeout_s:
            raise TimeoutError(f"Not ready within {self._timeout_s:g} s.")


def arrived(refs: Sequence[ObjectRef[Value]], timeout_s: float) -> list[ObjectRef[Value]]:
    """Those whose values are there; waits until all are, at most `timeout_s`."""
    ready, _ = ray.wait(list(refs), num_returns=len(refs), timeout=timeout_s)
    return [ref for ref in refs if ref in ready]


def any_arrived(refs: Sequence[ObjectRef], timeout_s: float) -> ObjectRef | None:
    """One whose value is there; waits for the first, at most `timeout_s`."""
    ready, _ = ray.wait(list(refs), timeout=timeout_s)
    return ready[0] if ready else None


def check_stop(stop: threading.Event) -> None:
    if stop.is_set():
        raise Stopped


def pause(seconds: float, stop: threading.Event) -> None:
    """Sleeps, unless the batch is being torn down: then raises Stopped."""
    if stop.wait(seconds):
        raise Stopped
