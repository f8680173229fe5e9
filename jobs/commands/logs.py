"""`resca logs DIR [ID]`: what ranks and driver have said of a video, or the last of what the driver has said."""

import re
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pydantic import JsonValue, TypeAdapter, ValidationError

from jobs.console import make_console
from jobs.errors import DONE, BadInput
from jobs.options.batch import LogsOptions
from jobs.request.checks import check_count
from jobs.store.additions import remembered_items
from jobs.store.documents import read_object
from jobs.store.items import Id
from jobs.store.ledger import read_lines
from jobs.store.ledger_lines import AnyLine, DoneLine, ItemLine
from jobs.store.logs import FAILURES, FOLDER, attempt_logs, driver_logs
from jobs.store.open import open_storage
from jobs.store.storage import Storage

MOST_LINES = 100_000
ID = TypeAdapter(Id)
# Of a record what stands in a place of its own, or is the same in all of an attempt.
PLACED = ("time", "level", "logger", "message", "traceback", "item", "attempt")
HAPPENED = {"start": "begun", "again": "to be tried again", "fail": "given up", "left": "left for another run"}


class Said(NamedTuple):
    """What was said, and when: seconds since 1970."""

    time_s: float
    text: str

    @property
    def line(self) -> str:
        """For people, in their time."""
        return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(self.time_s))} {self.text}"


def run(options: LogsOptions) -> int:
    """Print what was said. Raises BadInput where there is no batch, or no such video in it."""
    check_count("tail", options.tail, MOST_LINES)
    storage, console = open_storage(options.out), make_console()
    if not storage.folder("ledger"):
        raise BadInput(f"{storage} holds no batch: there is no ledger")
    if options.id is None:
        lines = [said.line for said in _records(storage, driver_logs(storage))][-options.tail :]
        lines = lines or ["the driver has logged nothing; it does only what was not expected"]
    else:
        lines = _of_item(storage, options.id)
    for line in lines:
        console.print(line, soft_wrap=True)
    return DONE


def _of_item(storage: Storage, item_id: str) -> list[str]:
    """Its way through the ledger and what ranks have logged, in the order of time; and why it was given up, in full."""
    try:
        ID.validate_python(item_id)
    except ValidationError as error:
        raise BadInput(f"{item_id!r} is no id of a video or image") from error
    said = [*_happened(read_lines(storage), item_id), *_records(storage, attempt_logs(storage, item_id))]
    if not said and item_id not in {item.id for item in remembered_items(storage)}:
        raise BadInput(f"the batch in {storage} has no {item_id}")
    lines = [each.line for each in sorted(said, key=lambda each: each.time_s)]
    return [*lines, *_failure(storage, item_id)] or [f"nothing has been said of {item_id}: it has not been begun"]


def _happened(lines: Iterable[AnyLine], item_id: str) -> Iterator[Said]:
    for line in lines:
        match line["e"]:
            case "add" | "withdraw" if line["id"] == item_id:
                yield Said(line["t"], "added" if line["e"] == "add" else "withdrawn")
            case "start" | "again" | "fail" | "left" | "done" if line["id"] == item_id:
                yield Said(line["t"], _told(line))


def _told(line: ItemLine | DoneLine) -> str:
    """`attempt 1, gang 0: begun`."""
    where = ", ".join(f"{what} {line[key]}" for what, key in (("attempt", "n"), ("gang", "g")) if key in line)
    if line["e"] == "done":
        return f"{where or 'found'}: done in {sum(line['s'].values()):.1f} s"
    error = f": {line['error']}" if "error" in line else ""
    return f"{where}: {HAPPENED[line['e']]}{error}"


def _records(storage: Storage, names: Iterable[str]) -> Iterator[Said]:
    """What lies in log files, without what is damaged."""
    for name in names:
        try:
            texts = storage.read(f"{FOLDER}/{name}").splitlines()
        except FileNotFoundError:  # It has been pruned meanwhile.
            continue
        for text in texts:
            try:
                record = read_object(text)
            except ValueError:
                continue
            yield Said(_seconds(record.get("time")), _text(record))


def _text(record: dict[str, JsonValue]) -> str:
    """One record, with its traceback below it."""
    facts = "".join(f", {key} {value}" for key, value in record.items() if key not in PLACED)
    text = f"{record.get('level')} {record.get('logger')}: {record.get('message')}{facts}"
    traceback = record.get("traceback")
    return f"{text}\n{_indented(str(traceback))}" if traceback else text


def _failure(storage: Storage, item_id: str) -> list[str]:
    """The traceback that was kept when it was given up."""
    try:
        text = storage.read(f"{FAILURES}/{item_id}.txt").decode(errors="replace")
    except FileNotFoundError:
        return []
    return [f"{storage.where(f'{FAILURES}/{item_id}.txt')}:", _indented(text)]


def _seconds(value: JsonValue) -> float:
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e10 else 0.0


def _indented(text: str) -> str:
    return re.sub(r"^", "    ", text.rstrip("\n"), flags=re.MULTILINE)
