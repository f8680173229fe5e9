"""Running a batch: gangs take items from one queue until each item has an outcome."""

import logging
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from queue import Empty, SimpleQueue

from cluster.backlog import Backlog
from cluster.events import BatchStopping, Event, GangEvent, ItemFailed, Outcome
from cluster.failure import Budgets, FailureKind, RankError
from cluster.fleet import Fleet
from cluster.job import Job
from cluster.nodes import HeadLost, NodeWatch
from cluster.placement import GangSpec, InfeasibleGang, shortfall
from cluster.session import Item, Result, Workload
from cluster.waiting import TICK_S

__all__ = ["Budgets", "Event", "HeadLost", "InfeasibleGang", "Outcome", "run_batch"]

logger = logging.getLogger(__name__)
# Ray itself ends the driver when the head has been gone for 60 s; what is to be said has to be said before.
HEAD_TIMEOUT_S = 45.0
TEARDOWN_S = 20.0


def run_batch(
    *,
    spec: GangSpec,
    gangs: int | None,
    workload: Workload[Item, Result],
    items: Iterable[Item],
    cost_of: Callable[[Item], float] = lambda item: 1.0,
    shape_of: Callable[[Item], Hashable] = lambda item: None,
    budgets: Budgets | None = None,
    on_event: Callable[[Event[Item, Result]], None] = lambda event: None,
    on_tick: Callable[[], None] = lambda: None,
    may_grow_to: Sequence[Mapping[str, float]] = (),
) -> list[Outcome[Item, Result]]:
    """Runs every item once on one of `gangs` gangs; returns the outcomes in the order of the items.

    Needs a running Ray (`cluster.runtime.ray_runtime`). With `gangs` None there are as many as the cluster holds,
    more when nodes join and fewer when they leave. Costly items come first; a gang prefers items of the shape that it
    ran last. What fails is tried again within `budgets`; when no gang can be started any longer, the items without an
    outcome get one with the reason. `on_event` and, several times a second, `on_tick` are called in this
    thread; what they raise ends the batch. Tracebacks are logged (`cluster.batch`). `may_grow_to` are the resources of
    all the nodes that an autoscaler may run together: a gang that fits only there is waited for.

    Raises ValueError for `gangs` below 1, InfeasibleGang, before anything is started, if the cluster is too small and
    will not grow, and HeadLost if its head is gone. Whatever ends this call, KeyboardInterrupt and SystemExit included,
    no gang outlives it (but for a lost head, to which nothing can be sent).
    """
    if gangs is not None and gangs < 1:
        raise ValueError(f"gangs is {gangs}; at least 1 gang is needed.")
    backlog = Backlog(
        Job(index=index, item=item, cost=cost_of(item), shape=shape_of(item)) for index, item in enumerate(items)
    )
    watch = NodeWatch(HEAD_TIMEOUT_S)
    try:
        _check_feasible(spec, gangs or 1, watch, may_grow_to)
        events: SimpleQueue[Event[Item, Result]] = SimpleQueue()
        fleet = Fleet(
            spec=spec,
            gangs=gangs,
            workload=workload,
            backlog=backlog,
            budgets=budgets or Budgets(),
            on_event=events.put,
            watch=watch,
        )
        _serve(fleet, backlog, watch, events, on_event, on_tick)
    finally:
        watch.end()
    _give_up_rest(backlog, fleet, on_event)
    return backlog.outcomes()


def _check_feasible(spec: GangSpec, gangs: int, watch: NodeWatch, may_grow_to: Sequence[Mapping[str, float]]) -> None:
    missing = shortfall(spec, gangs, watch.usable())
    if missing and shortfall(spec, gangs, may_grow_to):
        raise InfeasibleGang(missing)


def _serve(
    fleet: Fleet[Item, Result],
    backlog: Backlog[Item, Result],
    watch: NodeWatch,
    events: SimpleQueue[Event[Item, Result]],
    on_event: Callable[[Event[Item, Result]], None],
    on_tick: Callable[[], None],
) -> None:
    """Passes on what the slots report, in this thread, until all of them have ended."""
    try:
        fleet.grow()
        while fleet.is_at_work:
            _pass_on(events, on_event, wait_s=TICK_S)
            on_tick()
            watch.check_head()
            fleet.grow()
    except HeadLost:
        fleet.stop()  # Its threads wait for a Ray that does not answer; nobody can wait for them.
        raise
    except BaseException:
        fleet.stop()
        on_event(BatchStopping())
        fleet.join(TEARDOWN_S)
        raise
    fleet.join()
    _pass_on(events, on_event, wait_s=0)


def _pass_on(
    events: SimpleQueue[Event[Item, Result]], on_event: Callable[[Event[Item, Result]], None], wait_s: float
) -> None:
    """Every event that is there, or the first that comes."""
    try:
        event = events.get(timeout=wait_s) if wait_s else events.get_nowait()
        while True:
            if isinstance(event, GangEvent | ItemFailed) and event.traceback:
                logger.error("%s\n%s", event.error, event.traceback)
            on_event(event)
            event = events.get_nowait()
    except Empty:
        return


def _give_up_rest(
    backlog: Backlog[Item, Result], fleet: Fleet[Item, Result], on_event: Callable[[Event[Item, Result]], None]
) -> None:
    if not len(backlog):
        return
    unknown = RankError(kind=FailureKind.INFRASTRUCTURE, summary="No gang was left to run it.")
    error = fleet.last_error or unknown
    for job in backlog.give_up(error):
        on_event(ItemFailed(kind="item_failed", job=job, error=error.summary, failure=FailureKind.START))
