"""The ledger of a batch: what happened, one JSON object a line, only ever added to; and how the batch stands by it.

Lines are read back one by one, however many there are, and each for itself: what is not as it was written is left out.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from io import BytesIO
from typing import Literal

from pydantic import ValidationError

from cluster.heap import uncollected
from jobs.store.ledger_lines import LINE, UNKNOWN, AnyLine, BeginLine, DoneLine, EndLine, GangLine, ItemLine, line_text
from jobs.store.storage import Storage, Stored
from jobs.store.usage import Usage

FOLDER = "ledger"
SEGMENT = ".jsonl"
OF_ADDITIONS = "add-"  # how segments begin that no driver has written
READERS = 16  # small files that are read at the same time
SMALL_BYTES = 1 << 20
Status = Literal["waiting", "running", "retrying", "done", "failed"]


class Ledger:
    """One driver's part of the ledger. `add` costs nothing; `flush` makes it durable."""

    def __init__(self, storage: Storage) -> None:
        self._journal = storage.journal(FOLDER)
        self._fresh: list[str] = []

    def add(self, kind: str, **facts: object) -> None:
        """Take note of an event; facts that are None are left out."""
        self._fresh.append(line_text(kind, **facts))

    def flush(self) -> None:
        """Write what was added. Raises OSError, and keeps it for the next time, if that fails."""
        if not self._fresh:
            return
        self._journal.append("".join(f"{line}\n" for line in self._fresh).encode())
        self._fresh.clear()


@dataclass(slots=True)
class ItemState:
    """How one item stands, and the last line about it."""

    line: ItemLine | DoneLine
    status: Status
    attempts: int

    @property
    def done(self) -> DoneLine | None:
        """What the ledger says of the finished video, if it is one."""
        return self.line if self.status == "done" and self.line["e"] == "done" else None

    @property
    def error(self) -> str:
        """Why it failed or is tried again."""
        return "" if self.line["e"] == "done" else self.line.get("error", "")


@dataclass(kw_only=True)
class BatchState:
    """How a batch stands, by its ledger; times are seconds since 1970."""

    items: dict[str, ItemState] = field(default_factory=dict)
    added: set[str] = field(default_factory=set)
    """The ids of what was added, and not withdrawn."""
    withdrawn: set[str] = field(default_factory=set)
    begun: BeginLine | None = None
    """The last driver's first line."""
    ended: EndLine | None = None
    """Its last line, if it had the time for one."""
    last_s: float = 0.0
    retries: Counter[str] = field(default_factory=Counter)
    """By whose fault it was."""
    gang_losses: int = 0
    usage: Usage = field(default_factory=Usage)
    """What gangs have held."""
    num_damaged: int = 0
    """Lines that are not as they were written; each counts for nothing else."""

    @property
    def total(self) -> int:
        """How many items the batch has: those that the last driver knew of, with what has come and gone since."""
        known = self.begun["total"] - self.begun.get("added", 0) if self.begun else 0
        return max(known + len(self.added), len(self.items))

    def counts(self) -> Counter[str]:
        """Items by status; those without a line wait."""
        known = Counter(item.status for item in self.items.values())
        return known + Counter(waiting=self.total - len(self.items))

    def read(self, line: AnyLine) -> None:
        """Take the next line of the ledger into account."""
        if line["e"] == "begin":
            self._begin(line)
        self.last_s = line["t"]
        if line["e"] in ("again", "done", "fail", "left"):
            self.usage.rests(line.get("g"), line["t"])
        match line["e"]:
            case "add":
                self.added.add(line["id"])
                self.withdrawn.discard(line["id"])
            case "withdraw":
                self.added.discard(line["id"])
                self.withdrawn.add(line["id"])
            case "start":
                self.usage.runs(line.get("g"), line["t"])
                self._set(line, "running")
            case "again":
                self.retries[line.get("why", "")] += 1
                self._set(line, "retrying")
            case "done":
                self._set(line, "done")
            case "fail":
                self._set(line, "failed")
            case "left":
                self._set(line, "waiting")
            case "gang_ready":
                self._gang_ready(line)
            case "gang_lost":
                self.gang_losses += 1
                self.usage.gone(line.get("g", 0), line["t"])
            case "gang_closed":
                self.usage.gone(line.get("g", 0), line["t"])
            case "end":
                self.ended = line
                self.usage.end(line["t"])
                self._stop_running()

    def _gang_ready(self, line: GangLine) -> None:
        num_ranks, held_s = len(line.get("hosts", ())), line.get("held", 0.0)
        self.usage.ready(line.get("g", 0), num_ranks, line["t"], held_s, is_shared=line.get("shared", False))

    def _begin(self, line: BeginLine) -> None:
        self.begun, self.ended = line, None
        self.usage.end(self.last_s)  # of a driver that was killed
        self.usage.begin(on_gpus=line.get("gpus"), price=line.get("price"))
        self._stop_running()
        for item in self.items.values():
            if line.get("retry") and item.status == "failed":
                item.status = "waiting"

    def _stop_running(self) -> None:
        for item in self.items.values():
            if item.status in ("running", "retrying"):
                item.status = "waiting"

    def _set(self, line: ItemLine | DoneLine, status: Status) -> None:
        if line["id"] in self.withdrawn:
            return
        before = self.items.get(line["id"])
        attempts = line.get("n", before.attempts if before else 0)
        self.items[line["id"]] = ItemState(line, status, attempts)


@uncollected()
def read_state(storage: Storage) -> BatchState:
    """How the batch stands. A line that a killed driver did not finish, or a damaged one, counts for nothing."""
    state = BatchState()
    for line in _read(storage):
        if line is None:
            state.num_damaged += 1
        else:
            state.read(line)
    return state


def read_lines(storage: Storage) -> Iterator[AnyLine]:
    """What happened, in order, without what is damaged; what was added and withdrawn comes first."""
    return (line for line in _read(storage) if line is not None)


def _read(storage: Storage) -> Iterator[AnyLine | None]:
    """What happened, in order; None for a damaged line."""
    files = sorted(storage.folder(FOLDER).items(), key=lambda file: (not file[0].startswith(OF_ADDITIONS), file[0]))
    segments = [(f"{FOLDER}/{name}", stored) for name, stored in files if name.endswith(SEGMENT)]
    with ThreadPoolExecutor(READERS) as pool:  # An object store answers each request in its own time.
        for texts in pool.map(lambda segment: _texts(storage, *segment), segments):
            yield from _parsed(texts)


def lines_of(text: bytes) -> list[AnyLine]:
    """Those of a segment, without what is damaged."""
    return [line for line in _parsed(BytesIO(text)) if line is not None]


def _parsed(texts: Iterable[bytes]) -> Iterator[AnyLine | None]:
    for text in texts:
        try:
            yield LINE.validate_json(text)
        except ValidationError as error:
            if _is_damage(text, error):
                yield None


def _texts(storage: Storage, name: str, stored: Stored) -> Iterable[bytes]:
    """The lines of a segment: all at once of a small one, of a big one while they are asked for."""
    return BytesIO(storage.read(name)) if stored.num_bytes < SMALL_BYTES else storage.lines(name)


def _is_damage(text: bytes, error: ValidationError) -> bool:
    """Blank lines are none, nor is the last one of a driver that was killed, or is about to write the rest of it."""
    return bool(text.strip()) and text.endswith(b"\n") and error.errors(include_input=False)[0]["type"] != UNKNOWN
