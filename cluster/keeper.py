"""The actor that keeps a warm gang: its place, its lease, and whose turn it is. Ray ends the gang when it ends.

What a detached actor has reserved and started ends with it, whatever ends it: so a gang whose keeper is killed leaves
nothing behind, and neither does one whose driver is killed, as the keeper ends itself when its lease does.
"""

import asyncio
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic

import ray
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup

from cluster.placement import GangSpec, reserve
from cluster.remote import RemoteWorker, StartWorker
from cluster.session import Item, Result
from cluster.turns import Turns

LOOK_S = 0.25
# A call for a turn comes back after so long, and is made again: who waits shows that it is there.
PATIENCE_S = 2.0
# A rank that has not answered its keeper for so long counts as lost; one that loads a model may take its time.
SILENCE_S = 120.0
END_S = 5.0


@dataclass(frozen=True, kw_only=True)
class Roster(Generic[Item, Result]):
    """Who a gang is, in rank order, and what is reserved for it."""

    group: PlacementGroup
    workers: Sequence[RemoteWorker[Item, Result]]
    hosts: Sequence[str]
    node_ids: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A batch may run one item; `is_new` if the ranks have served another batch since its last, or none yet."""

    is_new: bool


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a keeper says of its gang: where it is, once it is ready; how many batches use it; how long none has."""

    node_ids: Sequence[str]
    is_ready: bool
    num_batches: int
    idle_s: float


class Keeper(Generic[Item, Result]):
    """Batches, each of a driver, name themselves by a token of their own.

    The gang ends when the leases of all batches have, each so long after it was heard of last as it has asked for. A
    batch that has the turn and is silent for `claim_s` has lost it, as soon as the ranks have done what they were at.
    """

    def __init__(self, claim_s: float):
        self._claim_s = claim_s
        self._turns = Turns(claim_s)
        self._leases: dict[str, float] = {}  # when that of each batch ends
        self._ends_s = time.monotonic() + claim_s
        self._roster: Roster[Item, Result] | None = None
        self._workers: list[RemoteWorker[Item, Result]] = []
        self._group: PlacementGroup | None = None
        self._served: str | None = None  # the batch that the ranks have served last
        self._idle_since_s = time.monotonic()
        self._changed = asyncio.Condition()
        self._minding: asyncio.Task[None] | None = None
        threading.Thread(target=self._end_with_lease, name="lease", daemon=True).start()

    async def reserve(self, spec: GangSpec, avoid: Sequence[str]) -> PlacementGroup:
        """Asks for the gang's place, which is pending at first."""
        self._group = reserve(spec, avoid)
        return self._group

    async def start_workers(
        self, spec: GangSpec, start_worker: StartWorker[Item, Result]
    ) -> list[RemoteWorker[Item, Result]]:
        assert self._group is not None
        self._workers = [start_worker(spec, self._group, index) for index in range(spec.world_size)]
        return self._workers

    async def settle(self, roster: Roster[Item, Result], batch: str, lease_s: float) -> None:
        """The gang is ready, and this batch will use it first."""
        self._roster = roster
        self._turns.come(batch)
        self._extend(batch, lease_s)
        self._minding = asyncio.create_task(self._mind())

    async def take(self, batch: str, lease_s: float, alone: bool) -> Roster[Item, Result] | None:
        """The gang, for a batch that will ask for turns; None if there is none yet, or if others are to be there, too.

        Of several that want it `alone` at once, one gets it.
        """
        if self._roster is None or (alone and self._turns.num_batches):
            return None
        self._served = None if self._served == batch else self._served  # it has handles of its own to the ranks again
        self._turns.come(batch)
        self._extend(batch, lease_s)
        return self._roster

    async def turn(self, batch: str, priority: float, lease_s: float) -> Turn | None:
        """The turn, if it comes within some seconds; None to ask again. Asking ends the turn that the batch has."""
        self._extend(batch, lease_s)
        is_given = self._turns.ask(batch, priority)
        await self._tell()
        if not is_given:
            async with self._changed:
                with suppress(TimeoutError):
                    await asyncio.wait_for(
                        self._changed.wait_for(lambda: self._turns.holder == batch), timeout=PATIENCE_S
                    )
        if self._turns.holder != batch:
            return None
        is_new, self._served = self._served != batch, batch
        self._extend(batch, lease_s)
        self._turns.renew(batch)
        return Turn(is_new=is_new)

    async def renew(self, batch: str, lease_s: float) -> None:
        """The batch is there: it starts the gang, or has the turn."""
        self._turns.renew(batch)
        self._extend(batch, lease_s)

    async def rest(self, batch: str, lease_s: float) -> None:
        """The batch has nothing to run at the moment."""
        self._turns.rest(batch)
        self._extend(batch, lease_s)
        await self._tell()

    async def leave(self, batch: str, lease_s: float) -> None:
        """The batch will not come back."""
        self._turns.leave(batch)
        self._extend(batch, lease_s)
        await self._tell()

    async def look(self) -> Look:
        roster, is_idle = self._roster, self._roster is not None and not self._turns.num_batches
        return Look(
            node_ids=roster.node_ids if roster else (),
            is_ready=roster is not None,
            num_batches=self._turns.num_batches,
            idle_s=time.monotonic() - self._idle_since_s if is_idle else 0.0,
        )

    async def end(self, batch: str) -> None:
        """Ends the gang if this batch has the turn; else the batch leaves."""
        if self._turns.holder == batch:
            self._end()
        self._turns.leave(batch)
        await self._tell()

    async def end_if_idle(self) -> None:
        """Ends the gang if no batch uses it: somebody needs its place."""
        if self._roster is not None and not self._turns.num_batches:
            self._end()

    def _extend(self, batch: str, lease_s: float) -> None:
        self._idle_since_s = now = time.monotonic()
        self._leases = {other: ends_s for other, ends_s in self._leases.items() if ends_s > now}
        self._leases[batch] = now + lease_s
        self._ends_s = max(self._leases.values())

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _mind(self) -> None:
        """Ends with its ranks, and takes the turn from a batch that has gone."""
        while True:
            await asyncio.sleep(self._claim_s / 4)
            try:
                async with asyncio.timeout(SILENCE_S):
                    await asyncio.gather(*(worker.poll() for worker in self._workers))
                if lapsed := self._turns.lapsed():
                    await asyncio.gather(*(worker.drained() for worker in self._workers))
                    if self._turns.lapsed() == lapsed:
                        self._turns.leave(lapsed)
                        await self._tell()
            except (RayError, TimeoutError):
                self._end()

    def _end_with_lease(self) -> None:
        while time.monotonic() < self._ends_s:
            time.sleep(LOOK_S)
        self._end()

    def _end(self) -> None:
        """Through Ray, which tells drivers nothing of it; or else by itself, which it takes for a crash."""
        with suppress(RayError, RuntimeError):
            ray.kill(ray.get_runtime_context().current_actor)
            time.sleep(END_S)
        os._exit(0)
