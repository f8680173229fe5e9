"""A worker as its driver sees it: Ray's handle of the actor, with the types that Ray does not know."""

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeAlias

import ray
from ray import ObjectRef
from ray.actor import ActorHandle
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.heartbeat import Heartbeat
from cluster.placement import GangSpec
from cluster.ranks import Member, RankContext
from cluster.session import Item, Result, Workload
from cluster.worker import RankReport, Worker


class RemoteWorker(Generic[Item, Result]):
    """One `Worker` in a process of its own. Each method but `kill` is that of the worker, and returns at once."""

    worker_class: type[Worker] = Worker
    batch: str | None = None
    """The one that items are run for, where batches take turns."""

    def __init__(self, spec: GangSpec, placement: PlacementGroup, index: int):
        place = PlacementGroupSchedulingStrategy(
            placement_group=placement, placement_group_bundle_index=index // spec.together
        )
        worker_class = ray.remote(self.worker_class).options(  # pyright: ignore[reportAttributeAccessIssue]
            num_cpus=spec.num_cpus_per_rank, num_gpus=spec.num_gpus_per_rank, scheduling_strategy=place
        )
        num_threads, on_cpu = max(1, int(spec.num_cpus_per_rank)), spec.num_gpus_per_rank == 0
        actor = worker_class.remote(dict(spec.env), num_threads, on_cpu, umask())
        assert isinstance(actor, ActorHandle)  # Ray's types leave open that it is the class.
        self._actor = actor

    def describe(self) -> ObjectRef[Member]:
        return self._call("describe")

    def open_store(self, world_size: int, timeout_s: float) -> ObjectRef[tuple[str, int]]:
        return self._call("open_store", world_size, timeout_s)

    def prepare(self, context: RankContext, workload: Workload[Item, Result]) -> ObjectRef[RankReport[None]]:
        return self._call("prepare", context, workload)

    def begin(
        self,
        context: RankContext,
        address: tuple[str, int],
        workload: Workload[Item, Result],
        join_s: float,
        collective_s: float,
    ) -> ObjectRef[RankReport[None]]:
        return self._call("begin", context, address, workload, join_s, collective_s)

    def take_up(self, batch: str, workload: Workload[Item, Result]) -> ObjectRef[RankReport[None]]:
        self.batch = batch
        return self._call("take_up", batch, workload, umask())

    def run(self, item: Item, attempt: int) -> ObjectRef[RankReport[Result]]:
        return self._call("run", item, attempt, self.batch)

    def drained(self) -> ObjectRef[None]:
        return self._call("drained")

    def poll(self) -> ObjectRef[Heartbeat]:
        return self._call("poll")

    def stacks(self) -> ObjectRef[str]:
        return self._call("stacks")

    def close(self) -> ObjectRef[RankReport[None]]:
        return self._call("close")

    def kill(self) -> None:
        ray.kill(self._actor)

    def _call(self, method: str, *args: object) -> ObjectRef:
        return getattr(self._actor, method).remote(*args)


# How a gang starts a rank, from its spec, its place and the number of the rank's bundle.
StartWorker: TypeAlias = Callable[[GangSpec, PlacementGroup, int], RemoteWorker[Item, Result]]


def umask() -> int:
    """Which permissions this process takes from new files; only Linux tells it without changing it."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
    except OSError:
        status = ""
    lines = [line for line in status.splitlines() if line.startswith("Umask:")]
    return int(lines[0].split()[1], 8) if lines else 0o022
