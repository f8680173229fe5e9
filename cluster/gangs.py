"""Where slots get their gangs from."""

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Generic, Protocol

from cluster.gang import Gang
from cluster.keepers import end_idlest, keepers
from cluster.place import OwnPlace
from cluster.placement import GangSpec
from cluster.remote import StartWorker
from cluster.session import Item, Result, Workload


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A gang that a slot asks for: on none of the nodes with ids in `avoid`, and if fresh, one that nothing has run on.

    `stop`, `waiting` and `placed` are those of `Gang.start`.
    """

    stop: threading.Event
    avoid: Collection[str]
    is_fresh: bool
    waiting: Callable[[float], None]
    placed: Callable[[], None]


class Gangs(Protocol[Item, Result]):
    """Gives a gang to whoever asks for one; safe for threads."""

    def get(self, wanted: Wanted) -> Gang[Item, Result]:
        """Raises as `Gang.start`."""
        ...

    def make_room(self) -> None:
        """One finds no place: what is kept for nobody may end."""
        ...

    def end(self) -> None:
        """Nobody will ask any more."""
        ...


class OwnGangs(Generic[Item, Result]):
    """Starts each gang anew; it ends with its batch."""

    def __init__(self, spec: GangSpec, workload: Workload[Item, Result], start_worker: StartWorker[Item, Result]):
        self._spec, self._workload, self._start_worker = spec, workload, start_worker

    def get(self, wanted: Wanted) -> Gang[Item, Result]:
        place = OwnPlace(self._spec, self._start_worker, wanted.avoid)
        return Gang.start(self._spec, place, self._workload, wanted.stop, waiting=wanted.waiting, placed=wanted.placed)

    def make_room(self) -> None:
        end_idlest(keepers())

    def end(self) -> None:
        pass
