"""Toy sessions for gangs, which do a real all_reduce and misbehave on request; and what is asked of a batch of them."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from cluster.batch import Outcome, run_batch
from cluster.events import Event, GangEvent
from cluster.failure import Budgets
from cluster.heartbeat import Heartbeat
from cluster.placement import GangSpec
from cluster.ranks import RankContext
from cluster.worker import RankResult

PAIR = GangSpec(world_size=2, collective_timeout_s=60, start_timeout_s=60, env={"OMP_NUM_THREADS": "1"})
VAIN = "all_to_all in dense step 4 did not end, deadline 4 s: rank 0 does not answer (stopped, killed or cut off)."
SINGLE = GangSpec(world_size=1, start_timeout_s=60)


class Refused(OSError):
    failure_kind = "storage"


class Toy:
    """Adds up a number over the ranks, and misbehaves on request."""

    num_ended = 0

    def __init__(self, context: RankContext, folder: Path):
        self.progress = 0.0
        self.beats = 0
        self.overdue: str | None = None
        self._context = context
        self._folder = folder

    def run(self, item: dict[str, Any], attempt: int) -> dict[str, Any]:
        self.progress, began_s = 0.5, time.monotonic()
        self.beats += 1
        if item.get("rank", self._context.rank) == self._context.rank:
            getattr(self, item.get("first", "nothing"))()
        total = self._add(item["value"])
        self.progress = 1.0
        span = began_s, time.monotonic()
        return {"total": total, "threads": os.environ.get("OMP_NUM_THREADS"), "folder": str(self._folder), "span": span}

    def take_up(self, workload: "ToyWorkload") -> None:
        self._folder = workload.folder

    def close(self) -> None:
        (self._folder / f"closed-{os.getpid()}").touch()

    def nothing(self) -> None:
        pass

    def fail(self) -> None:
        raise ValueError("a poison item")

    def be_refused(self) -> None:
        raise Refused("no room")

    def be_refused_twice(self) -> None:
        """By a storage that takes it the third time."""
        tries = self._folder / "tries"
        with tries.open("a") as file:
            file.write(".")
        if tries.stat().st_size < 3:
            self.be_refused()

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def die_once(self) -> None:
        if self._is_first_time():
            self.die()

    def stop_once(self) -> None:
        if self._is_first_time():
            os.kill(os.getpid(), signal.SIGSTOP)
            time.sleep(1)  # The signal may reach this thread some steps later.

    def _is_first_time(self) -> bool:
        marker = self._folder / "misbehaved"
        was_there = marker.exists()
        marker.touch()
        return not was_there

    def hang_once(self) -> None:
        if self._is_first_time():
            time.sleep(120)

    def wait_in_vain(self) -> None:
        """As on a GPU, where the host only enqueues what it would wait for."""
        self.overdue = VAIN
        time.sleep(120)

    def work_in_collectives(self) -> None:
        """One step that takes longer than the others may be waited for, of many collectives."""
        for _ in range(8):
            time.sleep(0.25)
            self.num_ended += 1

    def linger(self) -> None:
        time.sleep(1)

    def linger_long(self) -> None:
        time.sleep(6)

    def outlast(self) -> None:
        """Runs until another gang has closed."""
        assert eventually(lambda: list(self._folder.glob("closed-*")), patience_s=60)

    def _add(self, value: float) -> float:
        import torch
        import torch.distributed as dist

        total = torch.tensor([value * (self._context.rank + 1)])
        dist.all_reduce(total)
        return total.item()


class Errand(Toy):
    """Sends nothing to other ranks, and so needs no torch."""

    def _add(self, value: float) -> float:
        return value


class WatchedToy(Toy):
    """Adds up with a deadline, as ranks of a sequence group do."""

    def __init__(self, context: RankContext, folder: Path):
        super().__init__(context, folder)
        import torch

        from parallel.watch import Watch

        self._watch = Watch(deadline_s=2, device=torch.device("cpu"))

    def _add(self, value: float) -> float:
        with self._watch.over("all_reduce"):
            return super()._add(value)


@dataclass(frozen=True)
class ToyWorkload:
    folder: Path
    toy: type[Toy] = Toy

    def prepare(self, context: RankContext) -> None:
        (self.folder / f"prepared-{context.rank}").touch()

    def __call__(self, context: RankContext) -> Toy:
        (self.folder / f"pid-{os.getpid()}").touch()
        return self.toy(context, self.folder)


def eventually(holds: Any, patience_s: float = 20) -> bool:
    deadline = time.monotonic() + patience_s
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()


class BrokenWorkload:
    def prepare(self, context: RankContext) -> None:
        pass

    def __call__(self, context: RankContext) -> Toy:
        raise OSError("no weights here")


class AwayFromTheHub(BrokenWorkload):
    def prepare(self, context: RankContext) -> None:
        from parallel.watch import RankLost

        raise RankLost("the hub does not answer")


@ray.remote(num_cpus=0)
def fetch_slowly() -> RankResult[None]:
    time.sleep(0.3)
    return RankResult(value=None)


class Fetching:
    """A worker whose node fetches for a while, as the gang asks it."""

    fetched = False

    def prepare(self, context: RankContext, workload: BrokenWorkload) -> ray.ObjectRef:
        self.fetched = True
        return fetch_slowly.remote()

    def poll(self) -> ray.ObjectRef:
        return ray.put(Heartbeat())


def kinds(events: list[Event]) -> list[str]:
    return [event.kind for event in events if event.kind != "item_progress"]


def losses(events: list[Event]) -> list[GangEvent]:
    return [event for event in events if isinstance(event, GangEvent) and event.kind == "gang_lost"]


def gangs_that_ran(events: list[Event]) -> list[int | None]:
    """The gang of each item that is done, in the order in which they were."""
    return [event.gang for event in events if event.kind == "item_done"]


def pids_of(folder: Path) -> set[int]:
    """Of the ranks that have built a session for a batch in this folder, or below."""
    return {int(path.name.removeprefix("pid-")) for path in folder.rglob("pid-*")}


def run(
    folder: Path,
    items: list[dict],
    spec: GangSpec = PAIR,
    gangs: int | None = 1,
    toy: type[Toy] = Toy,
    budgets: Budgets | None = None,
) -> tuple[list[Outcome], list[Event]]:
    """A batch of toys in a folder: its outcomes and events."""
    events: list[Event] = []
    options: Any = {"spec": spec, "gangs": gangs, "budgets": budgets, "on_event": events.append}
    return run_batch(workload=ToyWorkload(folder, toy), items=items, **options), events
