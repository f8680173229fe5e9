"""Running a batch: gangs take items from one queue until each item has an outcome."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence

from cluster.events import Event, Outcome
from cluster.failure import Budgets
from cluster.intake import Source
from cluster.keep_warm import KeepWarm
from cluster.nodes import HeadLost
from cluster.placement import GangSpec, InfeasibleGang
from cluster.pool import open_pool
from cluster.remote import RemoteWorker, StartWorker
from cluster.session import Item, Result, Workload

__all__ = ["Budgets", "Event", "HeadLost", "InfeasibleGang", "KeepWarm", "Outcome", "run_batch"]


def run_batch(
    *,
    spec: GangSpec,
    gangs: int | None,
    workload: Workload[Item, Result],
    items: Iterable[Item],
    cost_of: Callable[[Item], float] = lambda item: 1.0,
    shape_of: Callable[[Item], Hashable] = lambda item: None,
    priority_of: Callable[[Item], int] = lambda item: 0,
    source: Source[Item] | None = None,
    budgets: Budgets | None = None,
    on_event: Callable[[Event[Item, Result]], None] = lambda event: None,
    on_tick: Callable[[], None] = lambda: None,
    may_grow_to: Sequence[Mapping[str, float]] = (),
    start_worker: StartWorker[Item, Result] = RemoteWorker,
    keep: KeepWarm | None = None,
) -> list[Outcome[Item, Result]]:
    """Runs every item once on one of `gangs` gangs, as `Pool.run` does with its last items, and raises as `open_pool`.

    Returns the outcomes in the order of the items.
    """
    with open_pool(
        spec=spec,
        gangs=gangs,
        workload=workload,
        budgets=budgets,
        on_event=on_event,
        on_tick=on_tick,
        may_grow_to=may_grow_to,
        start_worker=start_worker,
        keep=keep,
    ) as pool:
        return pool.run(items, cost_of=cost_of, shape_of=shape_of, priority_of=priority_of, is_last=True, source=source)
