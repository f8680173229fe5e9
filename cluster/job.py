"""An item on its way through the batch."""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic

from cluster.failure import FailureKind
from cluster.session import Item


@dataclass(frozen=True, kw_only=True, slots=True)
class Job(Generic[Item]):
    """An item, its place in the batch, how often it was started, and how often it has failed by whose fault.

    `cost` is what it takes, in any unit; gangs that are compiled for a `shape` prefer jobs of the same. Those of a
    higher `priority` come first.
    """

    index: int
    item: Item
    cost: float = 1.0
    shape: Hashable = None
    priority: int = 0
    attempts: int = 0
    failures: tuple[FailureKind, ...] = ()
    needs_fresh_gang: bool = False
    not_before: float = 0.0  # of time.monotonic()
