"""A virtual clock: waits end at their time, and work ends the later, the more of it shares the same cores."""

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count

Action = Callable[[], None]


@dataclass(order=True, kw_only=True)
class Planned:
    """An action, and when it comes: in seconds of the clock, or of work."""

    due: float
    number: int
    action: Action = field(compare=False)
    is_work: bool = field(compare=False)
    is_over: bool = field(default=False, compare=False)


class Timeline:
    """Actions in their order.

    Args:
        cores: those that all work shares, of which a piece takes one at most; None where each has its own.
    """

    def __init__(self, cores: float | None = None) -> None:
        self.now = self.worked = 0.0
        """Seconds of the clock, and those of work that a piece has had which was always under way."""
        self._cores = math.inf if cores is None else cores
        self._waits: list[Planned] = []
        self._work: list[Planned] = []
        self._num_pieces = 0
        self._numbers = count()

    def after(self, seconds: float, action: Action) -> Planned:
        """The action comes so many seconds later."""
        planned = Planned(due=self.now + seconds, number=next(self._numbers), action=action, is_work=False)
        heapq.heappush(self._waits, planned)
        return planned

    def work(self, seconds: float, action: Action) -> Planned:
        """The action comes once so many seconds of work are done."""
        # All pieces get on alike, so that they end in the order of what they have to do.
        planned = Planned(due=self.worked + seconds, number=next(self._numbers), action=action, is_work=True)
        heapq.heappush(self._work, planned)
        self._num_pieces += 1
        return planned

    def call_off(self, planned: Planned) -> None:
        """The action does not come, and its work takes nothing of the cores any more."""
        self._num_pieces -= planned.is_work and not planned.is_over
        planned.is_over = True

    def step(self) -> bool:
        """Moves the clock to the next action, which is done then; False where there is none."""
        wait, work = _first(self._waits), _first(self._work)
        works_until = self.now + max(0.0, work.due - self.worked) / self._speed if work else math.inf
        if wait and wait.due <= works_until:
            self._move_to(wait.due)
            self._do(heapq.heappop(self._waits))
        elif work:
            self._move_to(works_until)
            self.worked = work.due
            self._do(heapq.heappop(self._work))
        return bool(wait or work)

    @property
    def _speed(self) -> float:
        """Seconds of work in one of the clock."""
        return min(1.0, self._cores / max(1, self._num_pieces))

    def _move_to(self, now: float) -> None:
        self.worked += (now - self.now) * self._speed
        self.now = now

    def _do(self, planned: Planned) -> None:
        self.call_off(planned)
        planned.action()


def _first(heap: list[Planned]) -> Planned | None:
    while heap and heap[0].is_over:
        heapq.heappop(heap)
    return heap[0] if heap else None
