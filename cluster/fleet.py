"""The fleet: as many slots as there are to be gangs, in threads; with no number given, as many as the cluster holds."""

import threading
import time
from collections.abc import Callable
from typing import Generic

from cluster.backlog import Backlog
from cluster.events import Event
from cluster.failure import Budgets, RankError
from cluster.gangs import OwnGangs
from cluster.heartbeat import pace_of
from cluster.keep_warm import KeepWarm
from cluster.nodes import NodeWatch
from cluster.placement import GangSpec, room, shortfall
from cluster.remote import RemoteWorker, StartWorker
from cluster.session import Item, Result, Workload
from cluster.slot import LOOK_FOR_PLACE_S, Slot
from cluster.waiting import Pace
from cluster.warm import WarmGangs


class Fleet(Generic[Item, Result]):
    """Starts slots, more of them when nodes join (unless `gangs` says how many), and joins their threads."""

    def __init__(
        self,
        *,
        spec: GangSpec,
        gangs: int | None,
        workload: Workload[Item, Result],
        backlog: Backlog[Item, Result],
        budgets: Budgets,
        on_event: Callable[[Event[Item, Result]], None],
        watch: NodeWatch,
        start_worker: StartWorker[Item, Result] = RemoteWorker,
        keep: KeepWarm | None = None,
    ):
        self._spec, self._gangs = spec, gangs
        own = OwnGangs(spec, workload, start_worker)
        self._source = WarmGangs(spec, workload, start_worker, keep) if keep else own
        self._made_room_s = 0.0  # of time.monotonic()
        self._backlog, self._budgets, self._on_event, self._watch = backlog, budgets, on_event, watch
        self._stop = threading.Event()
        self._num_slots = 0
        self._threads: dict[Slot[Item, Result], threading.Thread] = {}  # of slots that serve, leave, or have given up
        self._leaving: set[int] = set()  # indices of slots
        self._lock = threading.Lock()
        self._errors: list[BaseException] = []
        self._last_error: RankError | None = None

    @property
    def is_at_work(self) -> bool:
        """Whether any slot still serves."""
        return any(thread.is_alive() for thread in self._threads.values())

    @property
    def can_work(self) -> bool:
        """Whether what comes could be run: no slot has ended by a mistake of ours, nor have all given up."""
        slots = list(self._threads)
        return not self._stop.is_set() and not (slots and all(slot.has_given_up for slot in slots))

    @property
    def last_error(self) -> RankError | None:
        """Why the last gang was lost, of all slots."""
        errors = [slot.last_error for slot in self._threads if slot.last_error]
        return errors[-1] if errors else self._last_error

    def grow(self) -> None:
        """Fills the cluster with gangs, as far as there are items for them. Never waits."""
        for slot in [slot for slot, thread in self._threads.items() if not thread.is_alive()]:
            self._last_error = slot.last_error or self._last_error
            if not (slot.has_given_up or self._stop.is_set()):
                del self._threads[slot]
                self._leaving.discard(slot.index)
        wanted = self._gangs if self._gangs is not None else max(1, room(self._spec, self._watch.usable()))
        while len(self._threads) < min(wanted, len(self._backlog)) and not self._has_given_up():
            self._add()

    def stop(self) -> None:
        """Makes every slot let go of its gang; `join` waits for it."""
        self._stop.set()

    def interrupt(self) -> None:
        """Behind `stop`: makes them do so at once, not when a heartbeat comes next."""
        for slot in self._threads:
            slot.interrupt()

    def join(self, timeout_s: float | None = None) -> None:
        """Waits for the slots' threads. Raises what one of them has raised by a mistake of ours."""
        for thread in list(self._threads.values()):
            thread.join(timeout_s)
        if self._errors:
            raise self._errors[0]

    def end(self) -> None:
        """Nothing will be started any more."""
        self._source.end()

    # What the slots ask (the protocol `ClusterView`), from their threads.

    def unusable(self) -> set[str]:
        return self._watch.unusable()

    def suspect(self, node_id: str) -> None:
        self._watch.suspect(node_id)

    def why_waiting(self) -> str:
        missing = shortfall(self._spec, 1, self._watch.usable())
        return missing or "The cluster has room for it, but others are using it."

    def make_room(self) -> None:
        with self._lock:  # One slot asks for all of them.
            is_due = time.monotonic() - self._made_room_s >= LOOK_FOR_PLACE_S
            self._made_room_s = time.monotonic() if is_due else self._made_room_s
        if is_due:
            self._source.make_room()

    def may_leave(self, slot: int) -> bool:
        if self._gangs is not None:
            return False
        with self._lock:  # Two that look at the same time must not leave to each other.
            if len(self._living()) <= max(1, room(self._spec, self._watch.usable())):
                return False
            self._leaving.add(slot)
            return True

    def others_run(self, slot: int) -> bool:
        return any(other.has_gang for other in self._living() if other.index != slot)

    def pace(self) -> Pace:
        return pace_of(len(self._threads))

    def _living(self) -> list[Slot[Item, Result]]:
        threads = list(self._threads.items())
        return [slot for slot, thread in threads if thread.is_alive() and slot.index not in self._leaving]

    def _has_given_up(self) -> bool:
        """A fleet without a number would otherwise start anew for ever what cannot be started."""
        return bool(self._threads) and not self.is_at_work

    def _add(self) -> None:
        slot = Slot(
            index=self._num_slots,
            gangs=self._source,
            backlog=self._backlog,
            cluster=self,
            budgets=self._budgets,
            on_event=self._on_event,
            stop=self._stop,
            start_timeout_s=self._spec.start_timeout_s,
        )
        self._num_slots += 1
        thread = threading.Thread(target=self._serve, args=[slot], name=f"gang-{slot.index}", daemon=True)
        self._threads[slot] = thread
        thread.start()

    def _serve(self, slot: Slot[Item, Result]) -> None:
        try:
            slot.serve()
        except BaseException as error:
            self._errors.append(error)
            self._stop.set()
