"""The ledger of a batch: what happened, one JSON object a line, only ever added to; and how things stand by it."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal

from cluster.heap import uncollected
from jobs.store.storage import Storage

FOLDER = "ledger"
READERS = 16  # small files that are read at the same time
Status = Literal["waiting", "running", "retrying", "done", "failed"]


class Ledger:
    """One driver's part of the ledger. `add` costs nothing; `flush` makes it durable."""

    def __init__(self, storage: Storage) -> None:
        self._journal = storage.journal(FOLDER)
        self._fresh: list[str] = []

    def add(self, kind: str, **facts: Any) -> None:
        """Take note of an event; facts that are None are left out."""
        known = {key: value for key, value in facts.items() if value is not None}
        self._fresh.append(json.dumps({"e": kind, "t": round(time.time(), 3), **known}, separators=(",", ":")))

    def flush(self) -> None:
        """Write what was added. Raises OSError, and keeps it for the next time, if that fails."""
        if not self._fresh:
            return
        self._journal.append("".join(f"{line}\n" for line in self._fresh).encode())
        self._fresh.clear()


@dataclass(slots=True)
class Standing:
    """How one item stands. `facts` is what the ledger says of its last event; of a finished one `Done` reads it."""

    status: Status = "waiting"
    attempts: int = 0
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(kw_only=True)
class Account:
    """How a batch stands, by its ledger; times are seconds since 1970."""

    items: dict[str, Standing] = field(default_factory=dict)
    begun: dict[str, Any] = field(default_factory=dict)
    """The last driver's first words: total, method, model, how many videos at a time."""
    ended: dict[str, Any] | None = None
    """Its last words, if it had any."""
    last_s: float = 0.0
    retries: Counter[str] = field(default_factory=Counter)
    """By whose fault it was."""
    gang_losses: int = 0

    def counts(self) -> Counter[str]:
        """Items by status; those that the ledger has not heard of wait."""
        known = Counter(standing.status for standing in self.items.values())
        unheard = max(0, self.begun.get("total", 0) - len(self.items))
        return known + Counter(waiting=unheard)

    def read(self, line: dict[str, Any]) -> None:
        """Take the next line of the ledger into account."""
        self.last_s = line["t"]
        match line["e"]:
            case "begin":
                self._begin(line)
            case "start":
                self._set(line, "running")
            case "again":
                self.retries[line["why"]] += 1
                self._set(line, "retrying")
            case "done" | "fail" as kind:
                self._set(line, "done" if kind == "done" else "failed")
            case "left" | "stale":
                self._set(line, "waiting")
            case "gang_lost":
                self.gang_losses += 1
            case "end":
                self.ended = line

    def _begin(self, line: dict[str, Any]) -> None:
        self.begun, self.ended = line, None
        for standing in self.items.values():
            if standing.status in ("running", "retrying") or (line.get("retry") and standing.status == "failed"):
                standing.status = "waiting"

    def _set(self, line: dict[str, Any], status: Status) -> None:
        standing = self.items.setdefault(line["id"], Standing())
        standing.status, standing.facts = status, line
        standing.attempts = line.get("n", standing.attempts)


@uncollected()
def read_account(storage: Storage) -> Account:
    """How the batch stands. A line that a killed driver did not finish, or a damaged one, counts for nothing."""
    account = Account()
    for line in read_lines(storage):
        account.read(line)
    return account


def read_lines(storage: Storage) -> Iterator[dict[str, Any]]:
    """What happened, in order."""
    names = [f"{FOLDER}/{name}" for name in sorted(storage.folder(FOLDER))]
    with ThreadPoolExecutor(READERS) as pool:  # An object store answers each request in its own time.
        segments = pool.map(storage.read, names)
        for text in chain.from_iterable(segment.split(b"\n") for segment in segments):
            try:
                line = json.loads(text)
                if isinstance(line["e"], str) and isinstance(line["t"], float | int):
                    yield line
            except (ValueError, KeyError, TypeError):
                continue
