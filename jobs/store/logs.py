"""Structured logs: JSON lines, one file for each attempt at a video, and not more of them than anyone reads."""

import json
import logging
import re
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path

from jobs.store.storage import Storage

FOLDER, FAILURES = "logs", "failures"
DRIVER = "driver.jsonl"
OURS = ("jobs", "cluster", "parallel", "caching")
LONGEST_BYTES = 1 << 20
MOST_FILES = 2000


class JsonLines(logging.Formatter):
    """Each record as one line of JSON: time (seconds since 1970), level, logger, message, and given facts."""

    def __init__(self, **facts: object) -> None:
        super().__init__()
        self._facts = facts

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **self._facts,
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class LogFile(RotatingFileHandler):
    """A log that leaves out what cannot be written: on a full disk, say. It is not worth a word on the terminal."""

    def handleError(self, record: logging.LogRecord) -> None:
        """Called for whatever goes wrong with a record."""


@contextmanager
def logging_to(path: Path, **facts: object) -> Iterator[None]:
    """What this package's modules log in the block goes to a file, of which the last two megabytes are kept."""
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    handler = LogFile(path, maxBytes=LONGEST_BYTES, backupCount=1, encoding="utf-8", delay=True)
    handler.setFormatter(JsonLines(**facts))
    loggers = [logging.getLogger(name) for name in OURS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
        with suppress(OSError):  # What it still holds back is written now.
            handler.close()


@contextmanager
def driver_log(storage: Storage) -> Iterator[None]:
    """The log of the driver, as `logs/driver.jsonl`."""
    with tempfile.TemporaryDirectory(prefix="resca-") as place, _log(storage, Path(place), DRIVER):
        yield


def attempt_log(
    storage: Storage, place: Path, item_id: str, attempt: int, **facts: object
) -> AbstractContextManager[None]:
    """The log of one attempt, as `logs/ID.ATTEMPT.jsonl`; `place` is where it is written where that is elsewhere."""
    return _log(storage, place, f"{item_id}.{attempt}.jsonl", item=item_id, attempt=attempt, **facts)


@contextmanager
def _log(storage: Storage, place: Path, name: str, **facts: object) -> Iterator[None]:
    """Written line by line, or in `place` and published as a whole at the end."""
    own = storage.log_path(f"{FOLDER}/{name}")
    path = own or place / name
    try:
        with logging_to(path, **facts):
            yield
    finally:
        if own is None and path.exists():
            with suppress(Exception):  # Each storage has its own; a log is not worth a video.
                storage.publish(path, f"{FOLDER}/{name}")


def driver_logs(storage: Storage) -> list[str]:
    """The names of the driver's logs, the oldest first: the one before, and that which is written to."""
    names = storage.folder(FOLDER)
    return [name for name in (f"{DRIVER}.1", DRIVER) if name in names]


def attempt_logs(storage: Storage, item_id: str) -> list[str]:
    """The names of those of an item's attempts."""
    name = re.compile(rf"{re.escape(item_id)}\.\d+\.jsonl(\.1)?")
    return list(filter(name.fullmatch, storage.folder(FOLDER)))


def prune(storage: Storage, keep: int = MOST_FILES) -> None:
    """Remove the oldest logs, so that at most `keep` are left; only where the storage tells their age."""
    names = storage.oldest_first(FOLDER)
    for name in names[: max(0, len(names) - keep)]:
        storage.remove(f"{FOLDER}/{name}")
