"""How items come into the queue, at first and while the batch runs, and how they leave it before they are run."""

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol

from cluster.backlog import Backlog
from cluster.job import Job
from cluster.session import Item, Result


@dataclass(frozen=True, kw_only=True)
class Order(Generic[Item]):
    """What decides which item comes next: `priority_of`, `cost_of` in any unit, and a gang's last `shape_of`."""

    cost_of: Callable[[Item], float] = lambda item: 1.0
    shape_of: Callable[[Item], Hashable] = lambda item: None
    priority_of: Callable[[Item], int] = lambda item: 0


class Intake(Generic[Item, Result]):
    """Makes jobs of items. `indices` gives each item its place among the outcomes."""

    def __init__(self, backlog: Backlog[Item, Result], order: Order[Item], indices: Iterator[int]) -> None:
        self._backlog, self._order, self._indices = backlog, order, indices

    @property
    def is_idle(self) -> bool:
        """Whether every item has its outcome."""
        return not len(self._backlog)

    def add(self, items: Iterable[Item]) -> None:
        """Items that are to be run."""
        self._backlog.add([self._job(item) for item in items])

    def withdraw(self, belongs: Callable[[Item], bool]) -> list[Item]:
        """Takes out those of these items that wait, and returns them; what a gang is running is run to its end."""
        return [job.item for job in self._backlog.withdraw(belongs)]

    def _job(self, item: Item) -> Job[Item]:
        order = self._order
        return Job(
            index=next(self._indices),
            item=item,
            cost=order.cost_of(item),
            shape=order.shape_of(item),
            priority=order.priority_of(item),
        )


class Source(Protocol[Item]):
    """Where further items come from while a batch runs."""

    @property
    def keeps_gangs(self) -> bool:
        """Whether gangs stay while there is nothing to do; else they give their machines back after a while."""
        ...

    def __call__(self, intake: Intake[Item, Result]) -> bool:
        """Gives the intake what has come; says whether more may come. Asked several times a second, it must not wait.

        False, when the intake is idle, ends the batch; else it is asked again.
        """
        ...
