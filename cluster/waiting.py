"""Waiting for Ray with a deadline and a stop flag, so that a driver's thread never blocks for good."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import ray

TICK_S = 0.2


class Stopped(Exception):
    """The batch is being torn down; whoever waits lets go of what it holds."""


class Patience:
    """How long the steps of one piece of work may take together."""

    def __init__(self, timeout_s: float, stop: threading.Event | None = None):
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._stop = stop or threading.Event()

    def collect(
        self,
        refs: Sequence[Any],
        check: Callable[[Any], None] | None = None,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> list[Any]:
        """The values of all `refs`, in order; `check` sees each as soon as it is there, `meanwhile` is called at ticks.

        Raises what the first failing one, `check` or `meanwhile` raises as soon as it does, TimeoutError at the
        deadline, and Stopped when the stop flag is set.
        """
        waiting = list(refs)
        while waiting:
            self._check()
            ready, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=TICK_S)
            for value in ray.get(ready):
                if check is not None:
                    check(value)
            meanwhile()
        return ray.get(list(refs))

    def _check(self) -> None:
        check_stop(self._stop)
        if time.monotonic() > self._deadline:
            raise TimeoutError(f"Not ready within {self._timeout_s:g} s.")


def check_stop(stop: threading.Event) -> None:
    if stop.is_set():
        raise Stopped


def pause(seconds: float, stop: threading.Event) -> None:
    """Sleeps, unless the batch is being torn down: then raises Stopped."""
    if stop.wait(seconds):
        raise Stopped
