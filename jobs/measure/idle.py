"""Ranks that only pass the time, each in a process of its own or many in one: what a driver is measured by."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import count
from random import Random

import ray
from ray import ObjectRef
from ray.actor import ActorHandle
from ray.util.placement_group import PlacementGroup

from cluster.placement import GangSpec
from cluster.ranks import RankContext
from cluster.remote import RemoteWorker
from cluster.session import Item, Result, Workload
from cluster.worker import RankReport, RankResult, Worker
from jobs.store.items import RenderItem

BEATS = 50  # of an item, as many as it would have steps
Facts = Mapping[str, object]  # of a sidecar


class IdleSession:
    """Passes the time of an item. Rank 0's sidecar says how long it had waited for it (`idle_s`, 0 for the first)."""

    num_ended, overdue = 0, None

    def __init__(self, item_s: float, sidecar: Facts | None):
        self._item_s, self._sidecar = item_s, sidecar
        self._began = self._lasts = self._ended = 0.0

    @property
    def progress(self) -> float:
        return min(1.0, (time.monotonic() - self._began) / self._lasts) if self._lasts else 0.0

    @property
    def beats(self) -> int:
        return int(self.progress * BEATS)

    def run(self, item: RenderItem, attempt: int) -> Facts | None:
        self._began = time.monotonic()
        idle_s = self._began - self._ended if self._ended else 0.0
        # All ranks of a gang draw the same; its first item is somewhere in its middle.
        drawn = Random(item.id).random()
        self._lasts = self._item_s * (0.5 + drawn if self._ended else drawn)
        time.sleep(self._lasts)
        self._ended = time.monotonic()
        return self._sidecar and {**self._sidecar, "id": item.id, "prompt": item.prompt, "idle_s": idle_s}

    def take_up(self, workload: "IdleWorkload") -> None:
        self._item_s, self._sidecar = workload.item_s, workload.sidecar

    def close(self) -> None:
        pass


@dataclass(frozen=True, kw_only=True)
class IdleWorkload:
    """Sessions whose items take `item_s` on average, a half of it at least."""

    item_s: float
    sidecar: Facts

    def prepare(self, context: RankContext) -> None:
        pass

    def __call__(self, context: RankContext) -> IdleSession:
        return IdleSession(self.item_s, self.sidecar if context.rank == 0 else None)


class IdleWorker(Worker):
    """A rank that joins no process group, and so needs no torch."""

    async def open_store(self, world_size: int, timeout_s: float) -> tuple[str, int]:
        return "", 0

    async def begin(
        self,
        context: RankContext,
        address: tuple[str, int],
        workload: Workload[Item, Result],
        join_s: float,
        collective_s: float,
    ) -> RankReport[None]:
        self._session = workload(context)
        return RankResult(value=None)


class Alone(RemoteWorker[Item, Result]):
    """An idle rank in a process of its own, which Ray starts at the gang's place."""

    worker_class = IdleWorker


class Crowd:
    """Many idle ranks in one process."""

    def __init__(self, num_ranks: int):
        self._ranks = [IdleWorker({}, 1, on_cpu=False, umask=0o077) for _ in range(num_ranks)]

    async def call(self, rank: int, method: str, *args: object) -> object:
        """What a rank answers."""
        return await getattr(self._ranks[rank], method)(*args)


class OneOfMany(RemoteWorker[Item, Result]):
    """One rank of a crowd, which outlives it: its place stays empty, and what it runs is given up."""

    def __init__(self, crowd: ActorHandle, rank: int):
        self._actor, self._rank = crowd, rank
        self._running: ObjectRef | None = None

    def run(self, item: Item, attempt: int) -> ObjectRef:
        self._running = super().run(item, attempt)
        return self._running

    def kill(self) -> None:
        if self._running is not None:
            ray.cancel(self._running)

    def _call(self, method: str, *args: object) -> ObjectRef:
        return self._actor.call.remote(self._rank, method, *args)


class Crowds:
    """Starts ranks as `open_pool` asks for them, `num_ranks` at most, in crowds that it has made."""

    def __init__(self, num_ranks: int, ranks_per_process: int):
        self._size, self._next = ranks_per_process, count()
        crowd = ray.remote(Crowd).options(num_cpus=0, max_concurrency=4 * ranks_per_process)  # pyright: ignore[reportAttributeAccessIssue]
        self._crowds = [crowd.remote(ranks_per_process) for _ in range(-(-num_ranks // ranks_per_process))]

    def __call__(self, spec: GangSpec, placement: PlacementGroup, index: int) -> OneOfMany:
        crowd, rank = divmod(next(self._next), self._size)
        actor = self._crowds[crowd]
        assert isinstance(actor, ActorHandle)  # Ray's types leave open that it is the class.
        return OneOfMany(actor, rank)
