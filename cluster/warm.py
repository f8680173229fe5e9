"""Gangs that outlive their batch: found by what they have loaded, started where there are none, or shared.

An idle one is taken first. If there is none, a new one is started if it finds a place at once; if not, one is shared
that others are using. Who finds no place at all may end idle ones, whatever they have loaded.
"""

import secrets
import threading
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace
from typing import Generic

from ray.exceptions import RayError

from cluster.claim import Claim
from cluster.gang import Gang, GangLost, start_error
from cluster.gangs import Wanted
from cluster.keep_warm import KeepWarm
from cluster.keepers import RemoteKeeper, end_idlest, keepers, look_at
from cluster.placement import GangSpec
from cluster.remote import StartWorker
from cluster.session import Item, Result, Workload
from cluster.warm_gang import KeptPlace, WarmGang

# A gang that waits for a place looks so often for one to share.
SHARE_AFTER_S = 2.0
RENEWALS = 4  # of a claim while it lasts


class Shared(Exception):
    """While a place was waited for, a gang of others has been found."""

    def __init__(self, gang: WarmGang):
        super().__init__()
        self.gang = gang


class WarmGangs(Generic[Item, Result]):
    """The source of gangs of one batch (the protocol `Gangs`), each of which it uses in one slot only."""

    def __init__(
        self,
        spec: GangSpec,
        workload: Workload[Item, Result],
        start_worker: StartWorker[Item, Result],
        keep: KeepWarm,
    ):
        self._spec, self._workload, self._start_worker, self._keep = spec, workload, start_worker, keep
        self._batch = secrets.token_hex(8)
        self._claims: dict[str, Claim[Item, Result]] = {}  # by the names of keepers
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._renewing = threading.Thread(target=self._keep_renewing, name="claims", daemon=True)
        self._renewing.start()

    def get(self, wanted: Wanted) -> Gang[Item, Result]:
        if not wanted.is_fresh and (taken := self._take(wanted.avoid, alone=True)):
            return taken
        looked_s = 0.0

        def look(seconds: float) -> None:
            nonlocal looked_s
            if not wanted.is_fresh and seconds - looked_s >= SHARE_AFTER_S:
                looked_s = seconds
                if found := self._take(wanted.avoid, alone=False):
                    raise Shared(found)
            wanted.waiting(seconds)

        try:
            return self._start(replace(wanted, waiting=look))
        except Shared as shared:
            return shared.gang

    def make_room(self) -> None:
        ours = self._in_use()
        end_idlest([keeper for keeper in keepers() if keeper.name not in ours])

    def end(self) -> None:
        self._ended.set()
        self._renewing.join(1)

    def _in_use(self) -> set[str]:
        """The keepers of the gangs that this batch has."""
        with self._lock:
            return {name for name, claim in self._claims.items() if not claim.is_over}

    def _start(self, wanted: Wanted) -> WarmGang[Item, Result]:
        name = f"{self._keep.key}/{secrets.token_hex(4)}"
        claim = self._claim(RemoteKeeper.start(name, self._keep.claim_s))
        assert claim is not None
        try:
            group = claim.reserve(self._spec, wanted.avoid, wanted.stop)
        except BaseException as error:
            claim.kill()
            if isinstance(error, RayError | TimeoutError):
                raise GangLost(start_error(error)) from error
            raise
        place = KeptPlace(self._spec, self._start_worker, claim, group)
        gang = WarmGang.start(
            self._spec, place, self._workload, wanted.stop, waiting=wanted.waiting, placed=wanted.placed
        )
        gang.settle()
        return gang

    def _take(self, avoid: Collection[str], *, alone: bool) -> WarmGang[Item, Result] | None:
        """One that is there, with the fewest batches; None if there is none, or, `alone`, if none is idle."""
        looks = look_at(keepers(self._keep.key))
        ready = [keeper for keeper in looks if looks[keeper].is_ready and not set(avoid) & set(looks[keeper].node_ids)]
        for keeper in sorted(ready, key=lambda keeper: looks[keeper].num_batches):
            claim = self._claim(keeper)
            if claim is None:
                continue
            with suppress(RayError):  # It has just ended.
                if roster := claim.take(alone=alone):
                    place = KeptPlace(self._spec, self._start_worker, claim, roster.group)
                    return WarmGang.taken(self._spec, place, self._workload, roster)
            claim.is_over = True
        return None

    def _claim(self, keeper: RemoteKeeper[Item, Result]) -> Claim[Item, Result] | None:
        """On a gang that no other slot of this batch has."""
        with self._lock:
            if keeper.name in self._claims and not self._claims[keeper.name].is_over:
                return None
            self._claims[keeper.name] = claim = Claim(keeper, self._keep, self._batch)
            return claim

    def _keep_renewing(self) -> None:
        """In a thread of its own: a slot may wait for minutes, until its storage takes a file, say."""
        while not self._ended.wait(self._keep.claim_s / RENEWALS):
            with self._lock:
                claims = list(self._claims.values())
            for claim in claims:
                with suppress(RayError):
                    claim.renew()
