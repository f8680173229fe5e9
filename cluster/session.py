"""What a batch runs: a workload, which builds a session on each rank, which then runs item after item."""

from collections.abc import Callable
from typing import Protocol, TypeVar

from cluster.ranks import RankContext

Item = TypeVar("Item")
Result = TypeVar("Result")
ItemIn = TypeVar("ItemIn", contravariant=True)
ResultOut = TypeVar("ResultOut", covariant=True)


class Session(Protocol[ItemIn, ResultOut]):
    """What a worker keeps between items; its properties are read by another thread while an item runs."""

    @property
    def progress(self) -> float:
        """How much of the item is done, 0 to 1."""
        ...

    @property
    def beats(self) -> int:
        """Changes whenever something has got done: if it does not for the gang's timeout, the gang hangs."""
        ...

    def run(self, item: ItemIn, attempt: int) -> ResultOut:
        """Called on every rank with the same item, for the `attempt`-th time; the value that rank 0 returns counts."""
        ...

    def close(self) -> None: ...


# Builds a session; called once per worker, in the actor, after the process group is up. Must be picklable.
Workload = Callable[[RankContext], Session[Item, Result]]
