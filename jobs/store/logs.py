"""Structured logs: JSON lines, one file for each attempt at a video, and not more of them than anyone reads."""

import json
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any

from jobs.store.storage import Storage

FOLDER = "logs"
OURS = ("jobs", "cluster", "parallel", "caching")
LONGEST_BYTES = 1 << 20
MOST_FILES = 2000


class JsonLines(logging.Formatter):
    """Each record as one line of JSON: time (seconds since 1970), level, logger, message, and given facts."""

    def __init__(self, **facts: Any) -> None:
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


@contextmanager
def logging_to(path: Path, **facts: Any) -> Iterator[None]:
    """What this package's modules log in the block goes to a file, of which the last two megabytes are kept."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handler = RotatingFileHandler(path, maxBytes=LONGEST_BYTES, backupCount=1, encoding="utf-8", delay=True)
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
        handler.close()


def driver_log(storage: Storage) -> AbstractContextManager[None]:
    """The log of the driver, as `logs/driver.jsonl`; none where logs cannot grow."""
    path = storage.log_path(f"{FOLDER}/driver.jsonl")
    return logging_to(path) if path else nullcontext()


@contextmanager
def attempt_log(storage: Storage, place: Path, item_id: str, attempt: int, **facts: Any) -> Iterator[None]:
    """The log of one attempt, as `logs/ID.ATTEMPT.jsonl`; `place` is where it is written where that is elsewhere."""
    name = f"{FOLDER}/{item_id}.{attempt}.jsonl"
    own = storage.log_path(name)
    path = own or place / f"{item_id}.{attempt}.jsonl"
    try:
        with logging_to(path, item=item_id, attempt=attempt, **facts):
            yield
    finally:
        if own is None and path.exists():
            with suppress(Exception):  # Each storage has its own; a log is not worth a video.
                storage.publish(path, name)


def prune(storage: Storage, keep: int = MOST_FILES) -> None:
    """Remove the oldest logs, so that at most `keep` are left; only where the storage tells their age."""
    names = storage.oldest_first(FOLDER)
    for name in names[: max(0, len(names) - keep)]:
        storage.remove(f"{FOLDER}/{name}")
