"""What a batch runs: a workload, which builds a session on each rank, which then runs item after item."""

from typing import Protocol, TypeVar, runtime_checkable

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

    @property
    def num_ended(self) -> int:
        """The collectives with other ranks that have come to their end; counts as `beats` do."""
        ...

    @property
    def overdue(self) -> str | None:
        """One sentence on what this rank has waited for in vain and cannot raise; its gang is lost then."""
        ...

    def run(self, item: ItemIn, attempt: int) -> ResultOut:
        """Called on every rank with the same item, for the `attempt`-th time; the value that rank 0 returns counts."""
        ...

    def close(self) -> None: ...


class Workload(Protocol[ItemIn, ResultOut]):
    """Builds sessions. Must be picklable."""

    def prepare(self, context: RankContext) -> None:
        """Fetch what this node needs first, however long that takes: called on the first rank of each node."""
        ...

    def __call__(self, context: RankContext) -> Session[ItemIn, ResultOut]:
        """A session; called once per worker, in the actor, after the process group is up."""
        ...


@runtime_checkable
class WarmSession(Session[Item, Result], Protocol[Item, Result]):
    """One that outlives its batch: what it has loaded serves the next, too."""

    def take_up(self, workload: Workload[Item, Result]) -> None:
        """Run the items of another batch from now on, whose sessions would load the same; called on every rank."""
        ...
