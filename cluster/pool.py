"""A pool of gangs that stay while one batch of items after another is run on them."""

import logging
import time
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from queue import Empty, SimpleQueue
from typing import Generic

from cluster.backlog import Backlog
from cluster.events import BatchStopping, Event, GangEvent, ItemFailed, Outcome
from cluster.failure import Budgets, FailureKind, RankError
from cluster.fleet import Fleet
from cluster.intake import Intake, Order, Source
from cluster.keep_warm import KeepWarm
from cluster.nodes import HeadLost, NodeWatch
from cluster.placement import GangSpec, InfeasibleGang, shortfall
from cluster.remote import RemoteWorker, StartWorker
from cluster.session import Item, Result, Workload
from cluster.waiting import TICK_S

logger = logging.getLogger(__name__)
# Ray itself ends the driver when the head has been gone for 60 s; what is to be said has to be said before.
HEAD_TIMEOUT_S = 45.0
TEARDOWN_S = 20.0


class Pool(Generic[Item, Result]):
    """What `open_pool` gives: gangs, and the queue that they take items from."""

    def __init__(
        self,
        fleet: Fleet[Item, Result],
        backlog: Backlog[Item, Result],
        events: SimpleQueue[Event[Item, Result]],
        watch: NodeWatch,
        *,
        on_event: Callable[[Event[Item, Result]], None],
        on_tick: Callable[[], None],
    ):
        self._fleet, self._backlog, self._events, self._watch = fleet, backlog, events, watch
        self._on_event, self._on_tick = on_event, on_tick
        self._indices = count()
        self._ticked_s = 0.0  # of time.monotonic()

    def run(
        self,
        items: Iterable[Item],
        *,
        cost_of: Callable[[Item], float] = lambda item: 1.0,
        shape_of: Callable[[Item], Hashable] = lambda item: None,
        priority_of: Callable[[Item], int] = lambda item: 0,
        is_last: bool = False,
        source: Source[Item] | None = None,
    ) -> list[Outcome[Item, Result]]:
        """Runs every item once; returns the outcomes in the order of the items.

        Urgent items come first, and of these costly ones; a gang prefers items of the shape that it ran last. When no
        gang can be started any longer, the items without an outcome get one with the reason. Of the last items, gangs
        that get none give their machines back, and none is left at the end. Items that come from a `source` meanwhile
        are run, too, until it has no more; what was withdrawn before it was begun has no outcome.
        """
        order = Order(cost_of=cost_of, shape_of=shape_of, priority_of=priority_of)
        intake = Intake(self._backlog, order, self._indices)
        intake.add(items)
        if source is not None:
            self._run_as_long_as(source, intake)
        if is_last:
            self._backlog.close()
        self._fleet.grow()
        while self._fleet.is_at_work and (len(self._backlog) or is_last):
            self._turn()
        if not self._fleet.is_at_work:
            self._fleet.join()
        self._pass_on(wait_s=0)
        self._give_up_rest()
        return self._backlog.take_outcomes()

    def _run_as_long_as(self, source: Source[Item], intake: Intake[Item, Result]) -> None:
        """Runs what there is and what comes, until no more comes or nothing can be run."""
        self._backlog.keeps_gangs = source.keeps_gangs
        self._fleet.grow()
        while self._fleet.can_work and (source(intake) or not intake.is_idle):
            self._turn()

    def end(self) -> None:
        """Lets every gang close in an orderly way."""
        self._backlog.close()
        while self._fleet.is_at_work:
            self._turn()
        self._fleet.join()
        self._pass_on(wait_s=0)

    def abandon(self) -> None:
        """Makes every gang stop what it runs, and waits for that."""
        self._fleet.stop()
        self._on_event(BatchStopping())
        self._fleet.interrupt()
        self._fleet.join(TEARDOWN_S)

    def _turn(self) -> None:
        """Passes on, in this thread, what the slots report; looks after the rest as often as ticks come, not events."""
        self._pass_on(wait_s=TICK_S)
        if time.monotonic() - self._ticked_s >= TICK_S:
            self._ticked_s = time.monotonic()
            self._on_tick()
            self._watch.check_head()
            self._fleet.grow()

    def _pass_on(self, wait_s: float) -> None:
        """Every event that is there, or the first that comes."""
        try:
            event = self._events.get(timeout=wait_s) if wait_s else self._events.get_nowait()
            while True:
                if isinstance(event, GangEvent | ItemFailed) and event.traceback:
                    logger.error("%s\n%s", event.error, event.traceback)
                self._on_event(event)
                event = self._events.get_nowait()
        except Empty:
            return

    def _give_up_rest(self) -> None:
        if not len(self._backlog):
            return
        unknown = RankError(kind=FailureKind.INFRASTRUCTURE, summary="No gang was left to run it.")
        error = self._fleet.last_error or unknown
        for job in self._backlog.give_up(error):
            self._on_event(ItemFailed(kind="item_failed", job=job, error=error.summary, failure=FailureKind.START))


@contextmanager
def open_pool(
    *,
    spec: GangSpec,
    gangs: int | None,
    workload: Workload[Item, Result],
    budgets: Budgets | None = None,
    on_event: Callable[[Event[Item, Result]], None] = lambda event: None,
    on_tick: Callable[[], None] = lambda: None,
    may_grow_to: Sequence[Mapping[str, float]] = (),
    start_worker: StartWorker[Item, Result] = RemoteWorker,
    keep: KeepWarm | None = None,
) -> Iterator[Pool[Item, Result]]:
    """Gangs for what is run in the block; those of a number are started as far as there are items for them.

    Needs a running Ray (`cluster.runtime.ray_runtime`). With `gangs` None there are as many as the cluster holds,
    more when nodes join and fewer when they leave. What fails is tried again within `budgets`. `on_event` and, several
    times a second while something runs, `on_tick` are called in this thread; what they raise ends the block. Tracebacks
    are logged (`cluster.pool`). `may_grow_to` are the resources of all the nodes that an autoscaler may run together: a
    gang that fits only there is waited for. `start_worker` starts each rank. `keep` says that gangs outlive the block,
    how, and that such gangs are taken where there are any; its sessions are `WarmSession`s.

    Raises ValueError for `gangs` below 1, InfeasibleGang, before anything is started, if the cluster is too small and
    will not grow, and HeadLost if its head is gone. Whatever ends the block, KeyboardInterrupt and SystemExit included,
    no gang outlives it (but for a lost head, to which nothing can be sent).
    """
    if gangs is not None and gangs < 1:
        raise ValueError(f"gangs is {gangs}; at least 1 gang is needed.")
    backlog: Backlog[Item, Result] = Backlog(may_grow=True)
    events: SimpleQueue[Event[Item, Result]] = SimpleQueue()
    watch = NodeWatch(HEAD_TIMEOUT_S)
    try:
        _check_feasible(spec, gangs or 1, watch, may_grow_to)
        fleet = Fleet(
            spec=spec,
            gangs=gangs,
            workload=workload,
            backlog=backlog,
            budgets=budgets or Budgets(),
            on_event=events.put,
            watch=watch,
            start_worker=start_worker,
            keep=keep,
        )
        pool = Pool(fleet, backlog, events, watch, on_event=on_event, on_tick=on_tick)
        try:
            yield pool
            pool.end()
        except HeadLost:
            fleet.stop()  # Its threads wait for a Ray that does not answer; nobody can wait for them.
            raise
        except BaseException:
            pool.abandon()
            raise
        finally:
            fleet.end()
    finally:
        watch.end()


def _check_feasible(spec: GangSpec, gangs: int, watch: NodeWatch, may_grow_to: Sequence[Mapping[str, float]]) -> None:
    missing = shortfall(spec, gangs, watch.usable())
    if missing and shortfall(spec, gangs, may_grow_to):
        raise InfeasibleGang(missing)
