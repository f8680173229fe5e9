"""Batches that share gangs by their priorities, on a real local Ray."""

import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pytest

from cluster.batch import Event, KeepWarm
from cluster.keepers import keepers
from cluster.pool import open_pool
from cluster.runtime import ray_runtime
from jobs.measure.idle import Alone
from tests.cluster.toy import SINGLE, eventually

pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True)
class Nap:
    """What passes the time of three batches."""

    seconds: float
    progress, beats, num_ended, overdue = 0.0, 0, 0, None

    def prepare(self, context: Any) -> None:
        pass

    def __call__(self, context: Any) -> "Nap":
        return self

    def take_up(self, workload: "Nap") -> None:
        pass

    def run(self, item: int, attempt: int) -> tuple[float, float]:
        began_s = time.monotonic()
        time.sleep(self.seconds)
        return began_s, time.monotonic()

    def close(self) -> None:
        pass


class Enough(Exception):
    """The window is over."""


class Counter:
    """Counts the items of several batches from when all of them have all gangs; `check` ends each after `window`."""

    def __init__(self, batches: list[str], gangs: int, window: int):
        self.ready: dict[str, set[int]] = {batch: set() for batch in batches}
        self.done: list[str] = []
        self._gangs, self._window, self._lock = gangs, window, threading.Lock()

    def note(self, batch: str, event: Event) -> None:
        with self._lock:
            if event.kind == "gang_ready":
                self.ready[batch].add(event.gang)
            elif event.kind == "item_done" and min(map(len, self.ready.values())) == self._gangs:
                self.done.append(batch)

    def check(self) -> None:
        if len(self.done) >= self._window:
            raise Enough

    @property
    def shares(self) -> dict[str, int]:
        window = self.done[: self._window]
        return {batch: window.count(batch) for batch in self.ready}


@pytest.mark.slow
def test_three_batches_share_two_gangs_by_their_priorities_over_100_items():
    priorities = {"a": 3.0, "b": 2.0, "c": 1.0}
    counter = Counter(list(priorities), gangs=2, window=100)

    def work(batch: str) -> None:
        keep = KeepWarm(key="naps", lease_s=2, claim_s=5, priority=priorities[batch])
        options: Any = {"on_event": lambda event: counter.note(batch, event), "on_tick": counter.check}
        with (
            suppress(Enough),
            open_pool(spec=SINGLE, gangs=2, workload=Nap(0.1), keep=keep, start_worker=Alone, **options) as pool,
        ):
            pool.run(list(range(1000)), is_last=True)

    with ray_runtime(num_cpus=2):
        threads = [threading.Thread(target=work, args=[batch]) for batch in priorities]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(120)
        assert eventually(lambda: not keepers())
    print(f"of 100 items: {counter.shares}")
    assert counter.shares == pytest.approx({"a": 50, "b": 100 / 3, "c": 50 / 3}, rel=0.1)
    runs = [len(list(run)) for batch, run in groupby(counter.done) if batch != "c"]
    assert max(runs) < 20, "none waits for long"
