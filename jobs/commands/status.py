"""`resca status DIR`: how a batch stands, from its storage alone; it may be running, anywhere."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from rich.console import Console

from jobs.commands.watch import check_seconds, watch
from jobs.console import count, duration, make_console, write_rows
from jobs.driver.standing import pace, per_hour, spent_words
from jobs.errors import DONE, INTERRUPTED, PARTIAL, BadInput
from jobs.options.batch import StatusOptions
from jobs.request.checks import check_price
from jobs.store.items import POSTER
from jobs.store.known import Done, is_intact
from jobs.store.ledger import BatchState, ItemState, Status, read_state
from jobs.store.ledger_lines import BeginLine
from jobs.store.lock import SILENT_S, Holder, read_holder
from jobs.store.open import open_storage
from jobs.store.storage import Storage, Stored

MOST_LINES = 20


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What one look at a storage has shown."""

    state: BatchState
    begun: BeginLine
    holder: Holder | None

    @property
    def is_at_work(self) -> bool:
        """Whether a driver has the batch, as far as can be seen from here."""
        return self.holder is not None and not self.holder.is_certainly_dead()

    @property
    def heard_s(self) -> float:
        """When the driver was last heard of, by its own clock."""
        return max(self.state.last_s, self.holder.written_s if self.holder else 0.0)

    @property
    def used_until_s(self) -> float:
        """Until when gangs have held what they held last: now, or until their driver was last heard of."""
        is_heard_of = self.is_at_work and time.time() - self.heard_s <= SILENT_S
        return time.time() if is_heard_of else self.state.last_s


def run(options: StatusOptions) -> int:
    """Print how the batch stands. Returns 3 if videos were given up or, with `verify`, are damaged; else 0.

    With `watch` it does so again and again until no driver is at work; 130 if Ctrl-C ends that.
    """
    check_price(options.price)
    storage, console = open_storage(options.out), make_console()
    if options.watch is None:
        seen = _look(storage, options.price)
        _say(console, _lines(seen))
    else:
        check_seconds(options.watch)
        try:
            seen = watch(lambda: _look(storage, options.price), _is_over, console, _lines, _line, options.watch)
        except KeyboardInterrupt:  # Nothing has happened to the batch.
            return INTERRUPTED
    is_damaged = options.verify and _verify(console, storage, seen.state)
    if options.json:
        write_rows(options.json, [_row(name, item) for name, item in seen.state.items.items()])
    return PARTIAL if seen.state.counts()["failed"] or is_damaged else DONE


def _look(storage: Storage, price: float | None) -> Seen:
    """Raises BadInput if there is no batch."""
    holder, state = read_holder(storage), read_state(storage)
    if not state.begun:
        raise BadInput(f"{storage} holds no batch: there is no ledger")
    state.usage.price = state.usage.price if price is None else price
    return Seen(state=state, begun=state.begun, holder=holder)


def _is_over(seen: Seen) -> bool:
    return not seen.is_at_work


def _say(console: Console, lines: Sequence[str]) -> None:
    for line in lines:
        console.print(line, soft_wrap=True)


def _lines(seen: Seen) -> list[str]:
    """All that is said of a batch."""
    state, begun = seen.state, seen.begun
    how = f"with {begun.get('model', 'an unknown model')}, {_methods(begun.get('method', 'unknown'))}"
    lines = [f"{count(state.total, begun.get('medium', 'video'))} {how}: {_counts(state)}"]
    if state.num_damaged:
        lines.append(f"{count(state.num_damaged, 'damaged line')} in the ledger, left out")
    lines.append(_driver(seen))
    lines += filter(None, ["; ".join(_pace(seen)), ", ".join(_spent(seen))])
    if state.gang_losses or state.retries:
        retries = ", ".join(f"{number} {kind}" for kind, number in state.retries.items()) or "none"
        lines.append(f"gangs lost: {state.gang_losses}; retries: {retries}")
    lines += _items(state, "running", lambda item: f"for {duration(_since(item))}, gang {item.line.get('g')}")
    lines += _items(state, "failed", lambda item: item.error)
    left = Counter(item.error for item in state.items.values() if item.status == "waiting" and item.line["e"] == "left")
    return lines + [f"  left waiting, {count(n, 'video')}: {error}" for error, n in left.most_common(MOST_LINES)]


def _line(seen: Seen) -> str:
    """The same in one line, for a watch that is written to a file."""
    return "; ".join([_counts(seen.state), *_pace(seen), *_spent(seen)])


def _counts(state: BatchState) -> str:
    counts = state.counts()
    return ", ".join(f"{counts[status]} {status}" for status in ("done", "running", "retrying", "waiting", "failed"))


def _methods(names: str) -> str:
    return f"{'methods' if ', ' in names else 'method'} {names}"


def _driver(seen: Seen) -> str:
    state, holder = seen.state, seen.holder
    if holder is None:
        how = state.ended["how"] if state.ended else "stopped"
        return f"no driver at work; the last one ended: {how}, {duration(time.time() - state.last_s)} ago"
    where = f"process {holder.pid} on {holder.host}"
    if holder.is_certainly_dead():
        return f"the driver ({where}) was killed; run the same command again, or resca retry"
    silence_s = time.time() - seen.heard_s
    driver = f"driver: {where}, last heard of {duration(silence_s)} ago"
    if silence_s <= SILENT_S:
        return driver
    return f"{driver}; it may be dead or cut off: the same command, run again, takes over"


def _pace(seen: Seen) -> list[str]:
    """Videos an hour of this driver, without its start, and how long the rest takes: as it expects, or at that pace."""
    state, begun_s = seen.state, seen.begun["t"]
    ends = [item.line["t"] for item in state.items.values() if item.status == "done" and item.line["t"] > begun_s]
    rate, counts = pace(len(ends), state.usage.ready_s or begun_s, max(ends, default=begun_s)), state.counts()
    left, left_s = counts["running"] + counts["retrying"] + counts["waiting"], _left_s(seen)
    if left_s is None and rate:
        left_s = left * 3600 / rate
    words = [per_hour(rate, seen.begun.get("medium", "video"))] if rate else []
    return [*words, f"the other {left} take about {duration(left_s)}"] if left and left_s is not None else words


def _spent(seen: Seen) -> list[str]:
    return spent_words(seen.state.usage, seen.used_until_s, _left_s(seen))


def _left_s(seen: Seen) -> float | None:
    """As the driver expects."""
    return seen.holder.left_s if seen.holder and seen.is_at_work else None


def _items(state: BatchState, status: Status, about: Callable[[ItemState], str]) -> list[str]:
    listed = [(name, item) for name, item in state.items.items() if item.status == status]
    lines = [f"  {status} {name}: {about(item)}" for name, item in listed[:MOST_LINES]]
    return [*lines, f"  and {len(listed) - MOST_LINES} more {status}"] if len(listed) > MOST_LINES else lines


def _since(item: ItemState) -> float:
    return time.time() - item.line["t"]


def _verify(console: Console, storage: Storage, state: BatchState) -> bool:
    """Says what is damaged, and gives whether anything is. A lost poster is told of, but no damage."""
    files = storage.folder("videos")
    damaged = list(_damaged(storage, state, files))
    _say(console, [f"damaged or missing: {name}" for name in damaged])
    posters = [f"{done.name.removeprefix('videos/')}.{POSTER}" for done in _done(state) if done.has_poster]
    if lost := sum(name not in files for name in posters):
        console.print(f"{count(lost, 'poster')} missing; the gallery shows what they were made of")
    return bool(damaged)


def _damaged(storage: Storage, state: BatchState, files: dict[str, Stored]) -> Iterator[str]:
    return (done.file for done in _done(state) if not is_intact(storage, done, files, verify=True))


def _done(state: BatchState) -> Iterator[Done]:
    return (Done.of_ledger(item.done) for item in state.items.values() if item.done)


def _row(name: str, item: ItemState) -> dict[str, object]:
    known = {key: value for key, value in item.line.items() if key not in ("e", "id")}
    return {"id": name, "status": item.status, "attempts": item.attempts, **known}
