"""What one batch has to do with the keeper of a warm gang: a claim, which has to be renewed."""

import threading
from collections.abc import Iterable
from contextlib import suppress
from typing import Generic

import ray
from ray import ObjectRef
from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup

from cluster.keep_warm import KeepWarm
from cluster.keeper import PATIENCE_S, Roster, Turn
from cluster.keepers import RemoteKeeper
from cluster.placement import GangSpec
from cluster.session import Item, Result
from cluster.waiting import Deadline, Value

# A keeper has nothing else to do than to answer.
ANSWER_S = 60.0


class Claim(Generic[Item, Result]):
    """What one batch has to do with one keeper.

    `is_held` while the gang is being started or it is the batch's turn there: then the claim has to be renewed.
    """

    def __init__(self, keeper: RemoteKeeper[Item, Result], keep: KeepWarm, batch: str):
        self.keeper, self.batch = keeper, batch
        self.is_held = self.is_over = self._has_asked = False
        self._keep = keep
        # While the gang is used it must not end between two renewals, however short its lease is.
        self._lease_s = max(keep.lease_s, keep.claim_s)
        self._is_settled = False

    def take(self, *, alone: bool) -> Roster[Item, Result] | None:
        """Who the gang is, if it may be used."""
        self._is_settled = True
        return answer(self.keeper.take(self.batch, self._lease_s, alone))

    def reserve(self, spec: GangSpec, avoid: Iterable[str], stop: threading.Event) -> PlacementGroup:
        """A place for a new gang, which is pending at first. Raises RayError, and as `Deadline.collect`."""
        self.is_held = True
        [group] = Deadline(spec.start_timeout_s, stop).collect([self.keeper.reserve(spec, avoid)])
        return group

    def settle(self, roster: Roster[Item, Result]) -> None:
        """The gang is ready, and serves whoever has the turn."""
        answer(self.keeper.settle(roster, self.batch, self._lease_s))
        self._is_settled, self.is_held = True, False

    def turn(self, stop: threading.Event) -> Turn | None:
        """The next turn, if it comes within some seconds. Raises RayError, and as `Deadline.collect`."""
        self._has_asked = True
        asked = self.keeper.turn(self.batch, self._keep.priority, self._lease_s)
        [turn] = Deadline(PATIENCE_S + ANSWER_S, stop).collect([asked])
        self.is_held = turn is not None
        return turn

    def renew(self) -> None:
        """To be called several times within `claim_s`, from any thread."""
        if self.is_held:
            self.keeper.renew(self.batch, self._lease_s if self._is_settled else self._keep.claim_s)

    def rest(self) -> None:
        """Nothing is to be run for now; the batch waits for no turn, either."""
        if self._has_asked:
            self._has_asked = self.is_held = False
            self.keeper.rest(self.batch, self._lease_s)

    def leave(self) -> None:
        """The batch has done with the gang; its lease counts from now on."""
        self._over(self.keeper.leave(self.batch, self._keep.lease_s))

    def end(self) -> None:
        """Ends the gang, if it is this batch's turn there."""
        self._over(self.keeper.end(self.batch))

    def end_soon(self) -> None:
        """The same, without waiting for it."""
        self.keeper.end(self.batch)

    def kill(self) -> None:
        """Ends the gang, whoever uses it."""
        self.is_held, self.is_over = False, True
        self.keeper.kill()

    def _over(self, last: ObjectRef[None]) -> None:
        self.is_held, self.is_over = False, True
        with suppress(RayError):  # It has ended, or will with its lease.
            answer(last)


def answer(ref: ObjectRef[Value]) -> Value:
    return ray.get(ref, timeout=ANSWER_S)
