"""Stopping a driver from anywhere: a small file in the storage that it looks for."""

import json
import time
from contextlib import suppress

from jobs.errors import TERMINATED, JobError
from jobs.store.storage import Storage

NAME = "cancel"
LOOK_S = 2.0


class Cancelled(JobError):
    """Somebody has asked for the end of the batch."""

    exit_code = TERMINATED


class CancelWatch:
    """A driver's view: `check` raises once somebody asks; what was asked of an earlier driver does not count."""

    def __init__(self, storage: Storage) -> None:
        self._storage, self._due_s = storage, 0.0
        storage.remove(NAME)

    def check(self) -> None:
        """Raises Cancelled. A storage that does not answer is asked again later."""
        now = time.monotonic()
        if now < self._due_s:
            return
        self._due_s = now + LOOK_S
        with suppress(OSError):
            if not self._storage.stored(NAME):
                return
            self._storage.remove(NAME)
            raise Cancelled(f"the batch in {self._storage} was cancelled; what is finished stays")


def ask(storage: Storage, by: str) -> None:
    """Ask the driver of the batch to stop."""
    storage.write(NAME, json.dumps({"by": by, "t": round(time.time(), 3)}).encode())
