"""Running a batch: gangs take items from one queue until each item has an outcome."""

import logging
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from queue import Empty, SimpleQueue
from typing import Any

from cluster.backlog import Backlog
from cluster.events import Event, Outcome
from cluster.failure import RankError
from cluster.placement import GangSpec, InfeasibleGang, shortfall
from cluster.slot import Slot
from cluster.waiting import TICK_S
from cluster.worker import Workload

__all__ = ["Event", "InfeasibleGang", "Outcome", "run_batch"]

logger = logging.getLogger(__name__)


def run_batch(
    *,
    spec: GangSpec,
    gangs: int,
    workload: Workload,
    items: Iterable[Any],
    on_event: Callable[[Event], None] = lambda event: None,
) -> list[Outcome]:
    """Runs every item once on one of `gangs` gangs; returns the outcomes in the order of the items.

    Needs a running Ray (`cluster.runtime.ray_runtime`). An item that raises is failed and the rest goes on; an
    item whose gang is lost is started once more. When no gang can be started any longer, the remaining items
    fail with kind START. `on_event` is called in this thread. Tracebacks are logged (logger `cluster.batch`).

    Raises ValueError for `gangs` below 1, and InfeasibleGang, before anything is started, if the cluster is too
    small. Whatever ends this call, KeyboardInterrupt and SystemExit included, no gang outlives it.
    """
    if gangs < 1:
        raise ValueError(f"gangs is {gangs}; at least 1 gang is needed.")
    missing = shortfall(spec, gangs)
    if missing:
        raise InfeasibleGang(missing)
    backlog = Backlog(items)
    stop = threading.Event()
    events: SimpleQueue[Event] = SimpleQueue()
    slots = [
        Slot(index=index, spec=spec, workload=workload, backlog=backlog, tell=events.put, stop=stop)
        for index in range(min(gangs, len(backlog)))
    ]
    _serve(slots, events, stop, on_event)
    _give_up_rest(backlog, slots, on_event)
    return backlog.outcomes()


def _serve(
    slots: list[Slot], events: SimpleQueue[Event], stop: threading.Event, on_event: Callable[[Event], None]
) -> None:
    """One thread a gang; this thread hands on what they tell. Returns when all threads have ended."""
    with ThreadPoolExecutor(max_workers=max(1, len(slots)), thread_name_prefix="gang") as pool:
        futures = [pool.submit(slot.serve) for slot in slots]
        try:
            _hand_on(events, futures, on_event)
        finally:
            stop.set()
    for future in futures:
        future.result()


def _hand_on(events: SimpleQueue[Event], futures: list[Future], on_event: Callable[[Event], None]) -> None:
    while True:
        are_done = all(future.done() for future in futures)
        try:
            event = events.get(timeout=0 if are_done else TICK_S)
        except Empty:
            if are_done or any(future.done() and future.exception() for future in futures):
                return
            continue
        if event.traceback:
            logger.error("%s\n%s", event.error, event.traceback)
        on_event(event)


def _give_up_rest(backlog: Backlog, slots: list[Slot], on_event: Callable[[Event], None]) -> None:
    errors: list[RankError] = [slot.last_error for slot in slots if slot.last_error]
    if not len(backlog):
        return
    for job in backlog.give_up(errors[-1]):
        on_event(
            Event(kind="item_failed", index=job.index, item=job.item, attempts=job.attempts, error=errors[-1].summary)
        )
