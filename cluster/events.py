"""What a batch tells while it runs, and what is left of each item at the end."""

from dataclasses import dataclass
from typing import Any, Literal

from cluster.failure import FailureKind

EventKind = Literal[
    "gang_starting",
    "gang_waiting",
    "gang_ready",
    "gang_lost",
    "gang_closed",
    "item_started",
    "item_progress",
    "item_done",
    "item_retried",
    "item_failed",
    "batch_stopping",
]


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened; fields that do not apply to its kind are None.

    gang_waiting    error: why there is no place for it at the moment
    gang_ready      hosts: of each rank
    gang_lost       error, traceback; item and index if one was running (it is started again, or fails next)
    gang_closed     error: why, if the batch is not at its end (its node is drained, say)
    item_started    item, index (its place in the batch), attempts (1 for the first)
    item_progress   item, index, fraction (0 to 1, as the session tells it)
    item_done       item, index, attempts, result
    item_retried    item, index, attempts, error, traceback, failure: it goes back into the queue
    item_failed     item, index, attempts, error, traceback, failure (START if no gang was left to run it)
    batch_stopping  something ends the batch before its time; what has to be kept must be kept now
    """

    kind: EventKind
    gang: int | None = None
    item: Any = None
    index: int | None = None
    attempts: int | None = None
    fraction: float | None = None
    result: Any = None
    error: str | None = None
    traceback: str | None = None
    failure: FailureKind | None = None
    hosts: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of an item: a result, or an error (one sentence) with its kind and, where known, traceback."""

    item: Any
    attempts: int
    gang: int | None = None
    result: Any = None
    error: str | None = None
    traceback: str | None = None
    failure: FailureKind | None = None
    was_left: bool = False
    """It failed because no gang was left to run it, not because it was given up."""

    @property
    def is_done(self) -> bool:
        return self.failure is None
