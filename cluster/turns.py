"""Whose turn it is on a gang that several batches want: each gets time by its priority, however long its items take.

A turn is one item. Each batch has a virtual time, the seconds that it has had over its priority, and of those that wait
the one with the least comes next; one that comes, or comes back, begins where the others are (start-time fair queueing:
Goyal, Vin and Cheng, SIGCOMM 1996). So none waits for longer than the others' next few items.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

# Who waits asks again sooner than that.
WAIT_S = 10.0


@dataclass(kw_only=True)
class Standing:
    """Of one batch; times are of the clock of `Turns`."""

    priority: float = 1.0
    virtual_s: float = 0.0
    heard_s: float = -math.inf
    is_waiting: bool = False


class Turns:
    """The batches that take turns on one gang; one has the turn at a time, and loses it if silent for `claim_s`."""

    def __init__(self, claim_s: float, clock: Callable[[], float] = time.monotonic):
        self._claim_s, self._clock = claim_s, clock
        self._standings: dict[str, Standing] = {}
        self._holder: str | None = None
        self._began_s = 0.0
        self._virtual_s = 0.0  # where the turn that is, or was last, began

    @property
    def holder(self) -> str | None:
        """The batch that has the turn."""
        return self._holder

    @property
    def num_batches(self) -> int:
        """How many have the turn, though they may be silent by now, wait for it, or are about to."""
        now = self._clock()
        return sum(batch == self._holder or self._is_there(batch, now) for batch in self._standings)

    def come(self, batch: str) -> None:
        """It will ask for a turn soon."""
        self._standings.setdefault(batch, Standing()).heard_s = self._clock()

    def ask(self, batch: str, priority: float) -> bool:
        """Whether it is this batch's turn. One that has the turn ends it so, and asks for the next."""
        standing = self._standings.setdefault(batch, Standing())
        if batch == self._holder:
            self._end()
        if not standing.is_waiting:
            standing.virtual_s = max(standing.virtual_s, self._virtual_s)
        standing.priority, standing.is_waiting, standing.heard_s = priority, True, self._clock()
        self._give()
        return self._holder == batch

    def renew(self, batch: str) -> None:
        """It is still there."""
        if batch in self._standings:
            self._standings[batch].heard_s = self._clock()

    def rest(self, batch: str) -> None:
        """It wants no turn for now; if it has one, that ends."""
        if batch == self._holder:
            self._end()
        if batch in self._standings:
            self._standings[batch].is_waiting, self._standings[batch].heard_s = False, -math.inf
        self._give()

    def leave(self, batch: str) -> None:
        """It will not come back."""
        self.rest(batch)
        self._standings.pop(batch, None)

    def lapsed(self) -> str | None:
        """The batch that has the turn, if it has been silent for too long."""
        holder, now = self._holder, self._clock()
        return holder if holder is not None and not self._is_there(holder, now) else None

    def _end(self) -> None:
        assert self._holder is not None
        standing = self._standings[self._holder]
        standing.virtual_s += (self._clock() - self._began_s) / standing.priority
        self._holder = None

    def _give(self) -> None:
        """The turn, to the next that waits, if nobody has it."""
        now = self._clock()
        waiting = [
            (standing.virtual_s, batch)
            for batch, standing in self._standings.items()
            if standing.is_waiting and now - standing.heard_s <= WAIT_S
        ]
        if self._holder is not None or not waiting:
            return
        self._virtual_s, self._holder = min(waiting)
        self._began_s = now
        self._standings[self._holder].is_waiting = False

    def _is_there(self, batch: str, now: float) -> bool:
        return now - self._standings[batch].heard_s <= self._claim_s
