"""Pure decisions about failures: whose fault it was, and whether to try again."""

import errno
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

LONGEST_BACKOFF_S = 60.0
# What the system says where a machine is at its limits, or broken, and not what runs on it.
OF_MACHINE = {
    *(errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE),
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE),
}


class Decision(StrEnum):
    RETRY = "retry"
    RETRY_ON_FRESH_GANG = "retry on a fresh gang"
    FAIL = "fail"


@dataclass(frozen=True, kw_only=True)
class Budgets:
    """How often what may fail, each counted apart from the others.

    An item is given up after `item_failures` of its own, the last on a fresh gang (after one that is known to come
    again), after `gang_losses` under it, or after `storage_failures`. A gang is given up after `starts` failed starts
    in a row. Before try number n comes a wait of `backoff_s` * 2**(n - 2), at most a minute.
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
class Policy:
    """What follows from a failure of one kind.

    limit       which budget says how often an item may fail so
    is_of_item  what the item left behind may be the cause, and a fresh gang may help
    loses_gang  nothing can run on that gang any more; another one may do
    is_left     an item that ends so is left for the next run, not given up
    holds_gang  no other item would fare better there: the gang keeps what it has of the item, waits, and tries again
    """

    limit: Callable[[Budgets], int]
    is_of_item: bool = False
    loses_gang: bool = False
    is_left: bool = False
    holds_gang: bool = False


class FailureKind(StrEnum):
    """Whose fault a failure was, with what follows from it.

    A new kind is an entry here, and an exception that carries it (`CarriesKind`).
    """

    policy: Policy

    # The session raised an exception of its own: doing it again will most likely raise it again.
    ITEM = "item", Policy(limit=lambda budgets: budgets.item_failures, is_of_item=True)
    # The session knows that doing it again would raise it again, on any machine.
    FINAL = "final", Policy(limit=lambda budgets: 1, is_of_item=True)
    # A process, a node, a device or a link was lost.
    INFRASTRUCTURE = "infrastructure", Policy(limit=lambda budgets: budgets.gang_losses, loses_gang=True)
    # The output cannot be written at the moment: the disk is full, say.
    STORAGE = "storage", Policy(limit=lambda budgets: budgets.storage_failures, is_left=True, holds_gang=True)
    # No gang could be started: the session cannot be built, or there is no place for it.
    START = "start", Policy(limit=lambda budgets: budgets.item_failures, is_left=True)

    def __new__(cls, value: str, policy: Policy) -> "FailureKind":
        kind = str.__new__(cls, value)
        kind._value_ = value
        kind.policy = policy
        return kind


@runtime_checkable
class CarriesKind(Protocol):
    """An exception that says itself how it counts, the value of a `FailureKind`, and whose message is a sentence."""

    @property
    def failure_kind(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class RankError:
    """What went wrong on one rank: one sentence, and the traceback (may be empty)."""

    kind: FailureKind
    summary: str
    traceback: str = ""


def decide(kind: FailureKind, count: int, budgets: Budgets) -> Decision:
    """Whether an item is tried again that has now failed `count` times in this way."""
    limit = kind.policy.limit(budgets)
    if count >= limit:
        return Decision.FAIL
    is_last = count == limit - 1
    return Decision.RETRY_ON_FRESH_GANG if kind.policy.is_of_item and is_last else Decision.RETRY


def decide_start(kind: FailureKind, starts: int, budgets: Budgets) -> Decision:
    """Whether a gang that failed to start is started again, after `starts` failures in a row."""
    return Decision.RETRY if kind.policy.loses_gang and starts < budgets.starts else Decision.FAIL


def summary_of(error: BaseException) -> str:
    """One sentence: the message of an exception that carries its kind; of any other, behind the name of its class."""
    if isinstance(error, CarriesKind) and (sentence := str(error).strip()):
        return sentence
    return "".join(traceback.format_exception_only(error)).strip()


def classify(error: BaseException) -> FailureKind:
    """How an exception counts: as its class says, or by what is known of system and torch; else as the item's."""
    if isinstance(error, CarriesKind):
        return FailureKind(error.failure_kind)
    is_of_machine = isinstance(error, OSError) and error.errno in OF_MACHINE
    return FailureKind.INFRASTRUCTURE if is_of_machine or _is_lost_by_torch(error) else FailureKind.ITEM


def _is_lost_by_torch(error: BaseException) -> bool:
    """Whether torch has lost a link or a device. Does not import torch: where it is not loaded, it raised nothing."""
    if "torch" not in sys.modules:
        return False
    import torch
    import torch.distributed as dist

    # gloo raises plain RuntimeErrors; its messages start with the place in its source that raised.
    is_of_gloo = isinstance(error, RuntimeError) and "/gloo/" in str(error)
    return is_of_gloo or isinstance(error, dist.DistError | torch.AcceleratorError)


def root_cause(errors: Sequence[RankError]) -> RankError:
    """The error to report of those of several ranks.

    When one rank raises, its peers fail in their next collective: that is a consequence, never the cause.
    """
    own = [error for error in errors if not error.kind.policy.loses_gang]
    return (own or list(errors))[0]


def is_gang_usable(errors: Sequence[RankError], num_missing: int) -> bool:
    """Whether the gang can take another item: every rank has come back, and no link or device broke."""
    return num_missing == 0 and not any(error.kind.policy.loses_gang for error in errors)
