"""Where a gang stands: what is reserved for it, and the workers there."""

from collections.abc import Iterable
from typing import Generic, Protocol

from ray.util.placement_group import PlacementGroup

from cluster.placement import GangSpec, release, reserve
from cluster.remote import RemoteWorker, StartWorker
from cluster.session import Item, Result


class Place(Protocol[Item, Result]):
    """A reservation, which may be pending, and who may work there."""

    @property
    def group(self) -> PlacementGroup:
        """What is reserved."""
        ...

    def start_workers(self) -> list[RemoteWorker[Item, Result]]:
        """One in each rank's place; called once there is a place."""
        ...

    def release(self) -> None:
        """Ends the workers and gives the place back; may be called again."""
        ...


class OwnPlace(Generic[Item, Result]):
    """A place that its driver holds: it ends with the driver."""

    def __init__(self, spec: GangSpec, start_worker: StartWorker[Item, Result], avoid: Iterable[str]):
        self._spec, self._start_worker = spec, start_worker
        self._workers: list[RemoteWorker[Item, Result]] = []
        self.group = reserve(spec, avoid)

    def start_workers(self) -> list[RemoteWorker[Item, Result]]:
        for index in range(self._spec.world_size):
            self._workers.append(self._start_worker(self._spec, self.group, index))
        return self._workers

    def release(self) -> None:
        for worker in self._workers:
            worker.kill()
        self._workers = []
        release(self.group)
