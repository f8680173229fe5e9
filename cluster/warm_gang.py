"""A gang that outlives its batch: between two items it may serve another."""

import threading
from collections.abc import Callable
from typing import Generic

from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup

from cluster.claim import Claim, answer
from cluster.failure import FailureKind, RankError
from cluster.gang import Gang, GangLost, RunFailure, refuse_failed_start, start_error
from cluster.heartbeat import LEADER
from cluster.keeper import Roster
from cluster.placement import GangSpec
from cluster.remote import RemoteWorker, StartWorker
from cluster.session import Item, Result, Workload
from cluster.waiting import Deadline, Pace
from cluster.worker import RankResult


class KeptPlace(Generic[Item, Result]):
    """A place that a keeper holds for a gang: it ends with the keeper."""

    def __init__(
        self,
        spec: GangSpec,
        start_worker: StartWorker[Item, Result],
        claim: Claim[Item, Result],
        group: PlacementGroup,
    ):
        self.claim, self.group = claim, group
        self._spec, self._start_worker = spec, start_worker

    def start_workers(self) -> list[RemoteWorker[Item, Result]]:
        return answer(self.claim.keeper.start_workers(self._spec, self._start_worker))

    def release(self) -> None:
        self.claim.kill()


class WarmGang(Gang[Item, Result]):
    """A gang that outlives its batch, and that others may use, too: between two items it may serve another.

    Nothing is done to it but by who has the turn. It takes up the batch when the turn is new.
    """

    is_shared = True

    def __init__(self, spec: GangSpec, place: KeptPlace[Item, Result], workload: Workload[Item, Result]):
        super().__init__(spec, place, workload)
        self._claim, self._is_ready = place.claim, False
        self._is_sound = True  # nothing runs on it, and nothing that ran has broken it

    @classmethod
    def taken(
        cls,
        spec: GangSpec,
        place: KeptPlace[Item, Result],
        workload: Workload[Item, Result],
        roster: Roster[Item, Result],
    ) -> "WarmGang[Item, Result]":
        """One that has been started before."""
        gang = cls(spec, place, workload)
        gang._workers, gang.hosts, gang.node_ids = list(roster.workers), list(roster.hosts), list(roster.node_ids)
        gang.num_runs, gang.was_warm, gang._is_ready = 1, True, True
        return gang

    def settle(self) -> None:
        """It has been started; from now on others may use it. Raises GangLost if its keeper is gone."""
        roster = Roster(group=self._place.group, workers=self._workers, hosts=self.hosts, node_ids=self.node_ids)
        try:
            self._claim.settle(roster)
        except RayError as error:
            self.shutdown()
            raise GangLost(start_error(error)) from error
        self._is_ready = True

    def take_turn(self, stop: threading.Event, is_wanted: Callable[[], bool]) -> bool:
        try:
            while is_wanted():
                if turn := self._claim.turn(stop):
                    if turn.is_new:
                        self._take_up(stop)
                    return True
        except (RayError, TimeoutError) as error:
            self._is_sound = False
            raise GangLost(_ended(error)) from error
        self._claim.rest()
        return False

    def run(
        self,
        item: Item,
        *,
        attempt: int,
        on_progress: Callable[[float], None],
        stop: threading.Event,
        pace: Pace = LEADER,
    ) -> RankResult[Result] | RunFailure:
        self._is_sound = False
        report = super().run(item, attempt=attempt, on_progress=on_progress, stop=stop, pace=pace)
        self._is_sound = isinstance(report, RankResult) or report.is_gang_usable
        return report

    def interrupt(self) -> None:
        """Nothing is to be done to what others run; ranks that run something of this batch end with their keeper."""
        if not self._is_sound:
            self._claim.end_soon()

    def rest(self) -> None:
        self._claim.rest()

    def give_back(self) -> None:
        """Leaves it to others, for as long as its lease lasts."""
        self._workers = []
        self._claim.leave()

    def close(self) -> None:
        """Ends it if it is this batch's turn: it shall not be used any more."""
        self._is_sound = False
        self.shutdown()

    def shutdown(self) -> None:
        """Ends what is not ready, or is this batch's to end and not as it was; leaves the rest to others."""
        if not self._is_ready:
            self._claim.kill()
        elif self._is_sound:
            self.give_back()
        else:
            self._claim.end()
        self._workers = []

    def _take_up(self, stop: threading.Event) -> None:
        """Has each rank serve this batch from now on."""
        asked = [worker.take_up(self._claim.batch, self._workload) for worker in self._workers]
        Deadline(self._spec.start_timeout_s, stop).collect(asked, check=refuse_failed_start)


def _ended(error: RayError | TimeoutError) -> RankError:
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    summary = f"The warm gang has ended, or does not answer: {first_line}"
    return RankError(kind=FailureKind.INFRASTRUCTURE, summary=summary)
