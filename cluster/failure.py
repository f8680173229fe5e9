"""Pure decisions about failures: whose fault it was, and whether to try again."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

LONGEST_BACKOFF_S = 60.0


class FailureKind(StrEnum):
    """Whose fault a failure was."""

    ITEM = "item"  # the session raised an exception of its own: doing it again will most likely raise it again
    INFRASTRUCTURE = "infrastructure"  # a process, a node, a device or a link was lost
    STORAGE = "storage"  # the output cannot be written at the moment: the disk is full, say
    START = "start"  # no gang could be started: the session cannot be built, or there is no place for it


class Decision(StrEnum):
    RETRY = "retry"
    RETRY_ON_FRESH_GANG = "retry on a fresh gang"
    FAIL = "fail"


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """How often what may fail, each counted apart from the others.

    An item is given up after `item_failures` of its own, the last on a fresh gang, after `gang_losses` under it, or
    after `storage_failures`. A gang is given up after `starts` failed starts in a row. Before try number n comes a wait
    of `backoff_s` * 2**(n - 2), at most a minute.
    """

    item_failures: int = 2
    gang_losses: int = 3
    storage_failures: int = 30
    starts: int = 3
    backoff_s: float = 1.0

    def wait_s(self, failures: int) -> float:
        """Seconds before the next try, after so many failures."""
        return min(LONGEST_BACKOFF_S, self.backoff_s * 2 ** (failures - 1))


@dataclass(frozen=True, kw_only=True)
class RankError:
    """What went wrong on one rank: one sentence, and the traceback (may be empty)."""

    kind: FailureKind
    summary: str
    traceback: str = ""


def decide(kind: FailureKind, count: int, budgets: Budgets) -> Decision:
    """Whether an item is tried again that has now failed `count` times in this way."""
    limits = {FailureKind.INFRASTRUCTURE: budgets.gang_losses, FailureKind.STORAGE: budgets.storage_failures}
    limit = limits.get(kind, budgets.item_failures)
    if count >= limit:
        return Decision.FAIL
    is_last = count == limit - 1
    return Decision.RETRY_ON_FRESH_GANG if kind is FailureKind.ITEM and is_last else Decision.RETRY


def decide_start(kind: FailureKind, starts: int, budgets: Budgets) -> Decision:
    """Whether a gang that failed to start is started again, after `starts` failures in a row."""
    lost = kind is FailureKind.INFRASTRUCTURE
    return Decision.RETRY if lost and starts < budgets.starts else Decision.FAIL


def classify(error: BaseException) -> FailureKind:
    """Tells a broken link, device or storage from an exception of the item's own, without importing torch."""
    families = {cls.__name__ for cls in type(error).__mro__}
    if "StorageError" in families:
        return FailureKind.STORAGE
    if families & {"RankLost", "DistError", "AcceleratorError"}:
        return FailureKind.INFRASTRUCTURE
    # gloo raises plain RuntimeErrors; its messages start with the place in its source that raised.
    if isinstance(error, RuntimeError) and "/gloo/" in str(error):
        return FailureKind.INFRASTRUCTURE
    return FailureKind.ITEM


def root_cause(errors: Sequence[RankError]) -> RankError:
    """The error to report of those of several ranks.

    When one rank raises, its peers fail in their next collective: that is a consequence, never the cause.
    """
    own = [error for error in errors if error.kind is not FailureKind.INFRASTRUCTURE]
    return (own or list(errors))[0]


def is_gang_usable(errors: Sequence[RankError], num_missing: int) -> bool:
    """Whether the gang can take another item: every rank has come back, and no link or device broke."""
    return num_missing == 0 and all(error.kind is not FailureKind.INFRASTRUCTURE for error in errors)
