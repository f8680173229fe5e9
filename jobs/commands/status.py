"""`resca status DIR`: how a batch stands, from its storage alone; it may be running, anywhere."""

import time
from collections import Counter
from collections.abc import Callable, Iterator

from rich.console import Console

from jobs.console import count, duration, make_console, write_rows
from jobs.errors import DONE, PARTIAL, BadInput
from jobs.options.batch import StatusOptions
from jobs.store.known import Done, is_intact
from jobs.store.ledger import BatchState, BeginLine, ItemState, Status, read_state
from jobs.store.lock import Holder, read_holder
from jobs.store.open import open_storage
from jobs.store.storage import Storage

MOST_LINES = 20
# A driver writes its lock every 5 s.
SILENT_S = 60.0


def run(options: StatusOptions) -> int:
    """Print how the batch stands. Returns 3 if videos were given up or, with `verify`, are damaged; else 0."""
    storage, console = open_storage(options.out), make_console()
    state = read_state(storage)
    if not state.begun:
        raise BadInput(f"{storage} holds no batch: there is no ledger")
    holder = read_holder(storage)
    _print(console, state, state.begun, holder)
    damaged = list(_damaged(storage, state)) if options.verify else []
    for name in damaged:
        console.print(f"damaged or missing: {name}", soft_wrap=True)
    if options.json:
        write_rows(options.json, [_row(name, item) for name, item in state.items.items()])
    return PARTIAL if state.counts()["failed"] or damaged else DONE


def _print(console: Console, state: BatchState, begun: BeginLine, holder: Holder | None) -> None:
    counts = state.counts()
    total = max(begun["total"], len(state.items))
    each = ", ".join(f"{counts[status]} {status}" for status in ("done", "running", "retrying", "waiting", "failed"))
    how = f"with {begun.get('model', 'an unknown model')}, {_methods(begun.get('method', 'unknown'))}"
    console.print(f"{count(total, begun.get('medium', 'video'))} {how}: {each}", soft_wrap=True)
    if state.num_damaged:
        console.print(f"{count(state.num_damaged, 'damaged line')} in the ledger, left out")
    console.print(_driver(state, holder), soft_wrap=True)
    if pace := _pace(state, begun["t"], holder):
        console.print(pace, soft_wrap=True)
    if state.gang_losses or state.retries:
        retries = ", ".join(f"{number} {kind}" for kind, number in state.retries.items()) or "none"
        console.print(f"gangs lost: {state.gang_losses}; retries: {retries}")
    _print_items(console, state, "running", lambda item: f"for {duration(_since(item))}, gang {item.line.get('g')}")
    _print_items(console, state, "failed", lambda item: item.error)
    left = Counter(item.error for item in state.items.values() if item.status == "waiting" and item.line["e"] == "left")
    for error, number in left.most_common(MOST_LINES):
        console.print(f"  left waiting, {count(number, 'video')}: {error}", soft_wrap=True)


def _methods(names: str) -> str:
    return f"{'methods' if ', ' in names else 'method'} {names}"


def _driver(state: BatchState, holder: Holder | None) -> str:
    if holder is None:
        how = state.ended["how"] if state.ended else "stopped"
        return f"no driver at work; the last one ended: {how}, {duration(time.time() - state.last_s)} ago"
    where = f"process {holder.pid} on {holder.host}"
    if holder.is_certainly_dead():
        return f"the driver ({where}) was killed; run the same command again, or resca retry"
    silence_s = time.time() - max(state.last_s, holder.written_s)
    driver = f"driver: {where}, last heard of {duration(silence_s)} ago"
    if silence_s <= SILENT_S:
        return driver
    return f"{driver}; it may be dead or cut off: the same command, run again, takes over"


def _pace(state: BatchState, begun_s: float, holder: Holder | None) -> str:
    """Videos an hour since this driver has begun, and how long the rest takes: as it expects, or else at that pace."""
    ends = [item.line["t"] for item in state.items.values() if item.status == "done" and item.line["t"] > begun_s]
    counts, seconds = state.counts(), max(ends, default=begun_s) - begun_s
    left = counts["running"] + counts["retrying"] + counts["waiting"]
    left_s = holder.left_s if holder and not holder.is_certainly_dead() else None
    if left_s is None and ends:
        left_s = left * seconds / len(ends)
    pace = [f"{3600 * len(ends) / seconds:.3g} videos an hour"] if ends else []
    rest = [f"the other {left} take about {duration(left_s)}"] if left and left_s is not None else []
    return "; ".join([*pace, *rest])


def _print_items(console: Console, state: BatchState, status: Status, about: Callable[[ItemState], str]) -> None:
    listed = [(name, item) for name, item in state.items.items() if item.status == status]
    for name, item in listed[:MOST_LINES]:
        console.print(f"  {status} {name}: {about(item)}", soft_wrap=True)
    if len(listed) > MOST_LINES:
        console.print(f"  and {len(listed) - MOST_LINES} more {status}")


def _since(item: ItemState) -> float:
    return time.time() - item.line["t"]


def _damaged(storage: Storage, state: BatchState) -> Iterator[str]:
    files = storage.folder("videos")
    for item in state.items.values():
        if item.done and not is_intact(storage, Done.of_ledger(item.done), files, verify=True):
            yield Done.of_ledger(item.done).file


def _row(name: str, item: ItemState) -> dict[str, object]:
    known = {key: value for key, value in item.line.items() if key not in ("e", "id")}
    return {"id": name, "status": item.status, "attempts": item.attempts, **known}
