"""What a batch reports while it runs, and what is left of each item at the end."""

from dataclasses import dataclass
from typing import Generic, Literal, TypeAlias

from cluster.failure import FailureKind, RankError
from cluster.job import Job
from cluster.session import Item, Result

GangEventKind = Literal["gang_starting", "gang_waiting", "gang_ready", "gang_lost", "gang_closed"]


@dataclass(frozen=True, kw_only=True)
class GangEvent(Generic[Item]):
    """Something happened to a gang; fields that do not apply to its kind are None.

    gang_waiting    error: why there is no place for it at the moment
    gang_ready      hosts: of each rank; held_s: how long it has had its place; was_warm: another batch has started it;
                    is_shared: other batches may use it, too
    gang_lost       error, traceback; job if one was running (it is started again, or fails next)
    gang_closed     error: why, if the batch is not at its end (its node is drained, say)
    """

    kind: GangEventKind
    gang: int
    job: Job[Item] | None = None
    error: str | None = None
    traceback: str | None = None
    hosts: tuple[str, ...] | None = None
    held_s: float | None = None
    was_warm: bool = False
    is_shared: bool = False


@dataclass(frozen=True, kw_only=True)
class ItemEvent(Generic[Item]):
    """Something happened to an item, on a gang if there was one."""

    job: Job[Item]
    gang: int | None = None

    @property
    def item(self) -> Item:
        return self.job.item

    @property
    def index(self) -> int:
        """Its place in the batch."""
        return self.job.index

    @property
    def attempts(self) -> int:
        """1 for the first."""
        return self.job.attempts


@dataclass(frozen=True, kw_only=True)
class ItemRunning(ItemEvent[Item]):
    """An item has started, or made progress: a fraction of 0 to 1, as the session reports it."""

    kind: Literal["item_started", "item_progress"]
    fraction: float = 0.0


@dataclass(frozen=True, kw_only=True)
class ItemDone(ItemEvent[Item], Generic[Item, Result]):
    """An item has its result."""

    kind: Literal["item_done"] = "item_done"
    result: Result


@dataclass(frozen=True, kw_only=True)
class ItemFailed(ItemEvent[Item]):
    """An item has failed, and goes back into the queue (item_retried) or not (item_failed).

    The traceback is there if the item itself raised. The failure is START if no gang was left to run it.
    """

    kind: Literal["item_retried", "item_failed"]
    error: str
    failure: FailureKind
    traceback: str | None = None


@dataclass(frozen=True, kw_only=True)
class BatchStopping:
    """Something ends the batch before its time; what has to be kept must be kept now."""

    kind: Literal["batch_stopping"] = "batch_stopping"


Event: TypeAlias = GangEvent[Item] | ItemRunning[Item] | ItemDone[Item, Result] | ItemFailed[Item] | BatchStopping


@dataclass(frozen=True, kw_only=True)
class Outcome(Generic[Item, Result]):
    """What became of an item: a result, or an error (one sentence) with its kind."""

    item: Item
    attempts: int
    result: Result | None = None
    error: str | None = None
    failure: FailureKind | None = None
    was_left: bool = False
    """It failed because no gang was left to run it, not because it was given up."""

    @classmethod
    def of_failure(cls, job: Job[Item], error: RankError, *, was_left: bool = False) -> "Outcome[Item, Result]":
        return cls(item=job.item, attempts=job.attempts, error=error.summary, failure=error.kind, was_left=was_left)
