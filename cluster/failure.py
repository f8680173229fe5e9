"""Pure decisions about failures: whose fault it was, and whether to try again."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

# An item is started at most this often when gangs are lost under it; the last start is on a fresh gang.
MAX_ATTEMPTS = 2
# A gang that fails to start this often in a row is given up.
MAX_STARTS = 2


class FailureKind(StrEnum):
    """Whose fault a failure was."""

    ITEM = "item"  # the session raised an exception of its own: doing it again would raise it again
    INFRASTRUCTURE = "infrastructure"  # a process, a node, a device or a link was lost
    START = "start"  # no gang could be started, so the item was never tried (or not tried again)


class Decision(StrEnum):
    RETRY = "retry"
    FAIL = "fail"


@dataclass(frozen=True, kw_only=True)
class RankError:
    """What went wrong on one rank: one sentence, and the traceback (may be empty)."""

    kind: FailureKind
    summary: str
    traceback: str = ""


def decide(kind: FailureKind, attempts: int) -> Decision:
    """Whether an item that failed is tried again, after `attempts` starts."""
    lost_under_it = kind is FailureKind.INFRASTRUCTURE
    return Decision.RETRY if lost_under_it and attempts < MAX_ATTEMPTS else Decision.FAIL


def decide_start(kind: FailureKind, starts: int) -> Decision:
    """Whether a gang that failed to start is started again, after `starts` failures in a row."""
    lost = kind is FailureKind.INFRASTRUCTURE
    return Decision.RETRY if lost and starts < MAX_STARTS else Decision.FAIL


def classify(error: BaseException) -> FailureKind:
    """Tells a broken link or device from an exception of the item's own, without importing torch."""
    families = {cls.__name__ for cls in type(error).__mro__}
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
    own = [error for error in errors if error.kind is FailureKind.ITEM]
    return (own or list(errors))[0]


def is_gang_usable(errors: Sequence[RankError], num_missing: int) -> bool:
    """Whether the gang can take another item: every rank has come back, and no link or device broke."""
    return num_missing == 0 and all(error.kind is FailureKind.ITEM for error in errors)
