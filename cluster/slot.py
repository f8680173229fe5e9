"""A slot for one gang: keeps a gang in it while there is work, and feeds it from the shared queue."""

import threading
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import replace
from itertools import count
from typing import Generic, Literal

from cluster.backlog import Backlog
from cluster.cluster_view import ClusterView
from cluster.events import Event, GangEvent, GangEventKind, ItemDone, ItemFailed, ItemRunning, Outcome
from cluster.failure import Budgets, Decision, FailureKind, RankError, decide, decide_start
from cluster.gang import Gang, GangLost, RunFailure
from cluster.gangs import Gangs, Wanted
from cluster.job import Job
from cluster.session import Item, Result
from cluster.waiting import Stopped, pause
from cluster.worker import RankResult

LOOK_FOR_PLACE_S = 2.0
# A gang that has had nothing to do for so long gives its machines back: others are running all that is left.
LONGEST_IDLE_S = 60.0
OTHERS_TURN = "Other batches run on it, too, each by its priority."


class NoPlace(Exception):
    """There is no place for this gang, and others do its work, or have done it."""


class Slot(Generic[Item, Result]):
    """Serves the queue in a thread of its own; only that thread touches the gang, but for `interrupt`."""

    def __init__(
        self,
        *,
        index: int,
        gangs: Gangs[Item, Result],
        backlog: Backlog[Item, Result],
        cluster: ClusterView,
        budgets: Budgets,
        on_event: Callable[[Event[Item, Result]], None],
        stop: threading.Event,
        start_timeout_s: float,
    ):
        self.index = index
        self.last_error: RankError | None = None
        self.has_given_up = False  # no gang can be started any more, or none can keep what it makes
        self._gangs, self._backlog, self._cluster = gangs, backlog, cluster
        self._budgets, self._on_event, self._stop = budgets, on_event, stop
        self._start_timeout_s = start_timeout_s
        self._gang: Gang[Item, Result] | None = None
        self._shape: Hashable = None
        self._looked_s = 0.0
        self._why = ""
        self._placed_s = self._last_busy_s = 0.0  # of time.monotonic()
        self._turns_lost = 0  # since an item has been finished: the gang was gone when its turn was to come
        self._is_refused = False  # an item was left here, and none has been finished since

    @property
    def has_gang(self) -> bool:
        return self._gang is not None

    def serve(self) -> None:
        """Runs items until each has its outcome, no gang can be had, or the stop flag is set."""
        try:
            with suppress(Stopped, NoPlace):
                while not self.has_given_up and self._backlog.is_worth_staying(self._stop, wake=self._on_nothing_to_do):
                    if self._must_move():
                        self._close()
                        self._report("gang_closed", error="A node of it is being drained, or does not answer.")
                    elif self._is_superfluous():
                        self._give_back()
                        self._report("gang_closed", error="Other gangs are running all that is left.")
                        break
                    elif (gang := self._gang_or_none()) is not None:
                        self._run_next(gang)
                self._give_back()
        finally:
            self._drop()

    def interrupt(self) -> None:
        """From another thread, once the stop flag is set: what the gang runs need not be waited for."""
        if (gang := self._gang) is not None:
            gang.interrupt()

    def _on_nothing_to_do(self) -> bool:
        """Whether something else has to be done than to wait for an item, for which others may have the gang."""
        if self._gang is not None:
            self._gang.rest()
        return self._must_move() or self._is_superfluous()

    def _is_superfluous(self) -> bool:
        """Whether the gang waits in vain: what comes back of what others run, they can run again themselves."""
        idle_s = time.monotonic() - self._last_busy_s
        return self._gang is not None and idle_s > LONGEST_IDLE_S and self._backlog.is_running_out

    def _must_move(self) -> bool:
        """Whether a node of the gang is about to leave; there it finishes what it runs, but begins nothing."""
        return self._gang is not None and bool(self._cluster.unusable().intersection(self._gang.node_ids))

    def _gang_or_none(self, *, is_fresh: bool = False) -> Gang[Item, Result] | None:
        """Gets a gang if there is none; None if that is hopeless."""
        starts = 0
        while self._gang is None:
            self._report("gang_starting")
            try:
                self._gang = self._get(is_fresh)
            except GangLost as loss:
                starts += 1
                self._lose(loss)
                if self._is_hopeless(loss.error.kind, starts):
                    self.has_given_up = True
                    return None
                pause(self._budgets.wait_s(starts), self._stop)
            else:
                self._last_busy_s = time.monotonic()
                self._on_event(self._ready(self._gang))
        return self._gang

    def _ready(self, gang: Gang[Item, Result]) -> GangEvent[Item]:
        return GangEvent(
            kind="gang_ready",
            gang=self.index,
            hosts=tuple(gang.hosts),
            held_s=0.0 if gang.was_warm else self._last_busy_s - self._placed_s,
            was_warm=gang.was_warm,
            is_shared=gang.is_shared,
        )

    def _is_hopeless(self, kind: FailureKind, starts: int) -> bool:
        """While other gangs work, machines may come back."""
        lost = kind.policy.loses_gang
        failed = decide_start(kind, starts, self._budgets) is Decision.FAIL
        return failed and not (lost and self._cluster.others_run(self.index))

    def _get(self, is_fresh: bool) -> Gang[Item, Result]:
        self._looked_s, self._why = 0.0, ""
        avoid, waiting = self._cluster.unusable(), self._wait_for_place
        wanted = Wanted(stop=self._stop, avoid=avoid, is_fresh=is_fresh, waiting=waiting, placed=self._take_place)
        return self._gangs.get(wanted)

    def _take_place(self) -> None:
        self._check_needed()
        self._placed_s = time.monotonic()

    def _check_needed(self) -> None:
        """Raises NoPlace if every item has its outcome by now."""
        if self._backlog.is_over:
            raise NoPlace

    def _wait_for_place(self, seconds: float) -> None:
        """Says why it takes so long. Raises NoPlace, or GangLost after the timeout if nobody else does the work."""
        if seconds - self._looked_s < LOOK_FOR_PLACE_S:
            return
        self._looked_s = seconds
        self._check_needed()
        self._cluster.make_room()
        why = self._cluster.why_waiting()
        if why != self._why:
            self._why = why
            self._report("gang_waiting", error=why)
        if self._cluster.may_leave(self.index):
            self._report("gang_closed", error=why)
            raise NoPlace
        timeout_s = self._start_timeout_s
        if seconds > timeout_s and not self._cluster.others_run(self.index):
            summary = f"A gang found no place within {timeout_s:g} s. {why}"
            raise GangLost(RankError(kind=FailureKind.INFRASTRUCTURE, summary=summary))

    def _run_next(self, gang: Gang[Item, Result]) -> None:
        job = self._backlog.take(self._shape) if self._has_turn(gang) else None
        if job is None:
            return
        needed = self._renew_gang(job) if job.needs_fresh_gang and gang.num_runs else gang
        if needed is None:
            return
        self._shape = job.shape
        again: Job[Item] | None = job
        while again is not None:
            self._on_event(ItemRunning(kind="item_started", gang=self.index, job=again))
            again = self._settle(again, self._run(needed, again))
        self._last_busy_s = time.monotonic()

    def _has_turn(self, gang: Gang[Item, Result]) -> bool:
        """Waits for it, for as long as an item may wait, too; a gang that is gone meanwhile is dropped."""
        asked = count()

        def is_wanted() -> bool:
            if next(asked) and self._why != OTHERS_TURN:
                self._why = OTHERS_TURN
                self._report("gang_waiting", error=OTHERS_TURN)
            return not (self._backlog.is_over or self._must_move())

        try:
            return gang.take_turn(self._stop, is_wanted)
        except GangLost as loss:
            self._turns_lost += 1
            self._lose(loss)
            self._drop()
            self.has_given_up = self._is_hopeless(loss.error.kind, self._turns_lost)
            return False

    def _renew_gang(self, job: Job[Item]) -> Gang[Item, Result] | None:
        """Puts a fresh gang in place of this one; if there is none, however that ends, the job goes back."""
        self._close()
        renewed = None
        try:
            gang = self._gang_or_none(is_fresh=True)
            renewed = gang if gang is not None and self._has_turn(gang) else None
            return renewed
        finally:
            if renewed is None:
                self._backlog.put_back(replace(job, attempts=job.attempts - 1))

    def _run(self, gang: Gang[Item, Result], job: Job[Item]) -> RankResult[Result] | RunFailure:
        def on_progress(fraction: float) -> None:
            self._on_event(ItemRunning(kind="item_progress", gang=self.index, job=job, fraction=fraction))

        try:
            pace = self._cluster.pace()
            report = gang.run(job.item, attempt=job.attempts, on_progress=on_progress, stop=self._stop, pace=pace)
        except GangLost as loss:
            self._lose(loss, job)
            report = RunFailure(error=loss.error, is_gang_usable=False)
        else:
            if isinstance(report, RunFailure) and report.error.kind.policy.loses_gang:
                self._lose(GangLost(report.error), job)
        if isinstance(report, RunFailure) and not report.is_gang_usable:
            self._drop()
        return report

    def _settle(self, job: Job[Item], report: RankResult[Result] | RunFailure) -> Job[Item] | None:
        """Gives the job its outcome, or back to the queue; or returns it, to be run again by this gang."""
        if isinstance(report, RankResult):
            self._is_refused, self._turns_lost = False, 0
            self._backlog.finish(job, Outcome(item=job.item, attempts=job.attempts, result=report.value))
            self._on_event(ItemDone(gang=self.index, job=job, result=report.value))
            return None
        kind = report.error.kind
        job = replace(job, failures=(*job.failures, kind))
        decision = decide(kind, job.failures.count(kind), self._budgets)
        is_hopeless = kind.policy.holds_gang and self._is_refused
        if decision is Decision.FAIL or is_hopeless:
            self._leave_or_give_up(job, report.error, is_hopeless)
            return None
        return self._retry(job, report.error, fresh=decision is Decision.RETRY_ON_FRESH_GANG)

    def _leave_or_give_up(self, job: Job[Item], error: RankError, is_hopeless: bool) -> None:
        """The job gets its outcome; if the one before it ended so, too, this slot gives up with it."""
        self._is_refused = error.kind.policy.holds_gang
        if is_hopeless:
            self.has_given_up, self.last_error = True, error
        self._on_event(self._failed("item_failed", job, error))
        self._backlog.finish(job, Outcome.of_failure(job, error))

    def _retry(self, job: Job[Item], error: RankError, fresh: bool) -> Job[Item] | None:
        """The job, once its backoff is over, if this gang keeps it; else it goes back to the queue."""
        wait_s = self._budgets.wait_s(len(job.failures))
        self._on_event(self._failed("item_retried", job, error))
        if error.kind.policy.holds_gang and self._gang is not None:
            self._gang.rest()  # others may have no trouble; the gang has what it has kept unless one takes it up
            pause(wait_s, self._stop)
            if not self._must_move() and self._has_turn(self._gang):
                return replace(job, attempts=job.attempts + 1)
        self._backlog.put_back(replace(job, needs_fresh_gang=fresh, not_before=time.monotonic() + wait_s))
        return None

    def _failed(
        self, kind: Literal["item_retried", "item_failed"], job: Job[Item], error: RankError
    ) -> ItemFailed[Item]:
        # The loss of a gang has been reported with its traceback already.
        traceback = error.traceback if error.kind.policy.is_of_item else None
        return ItemFailed(
            kind=kind, gang=self.index, job=job, error=error.summary, failure=error.kind, traceback=traceback
        )

    def _lose(self, loss: GangLost, job: Job[Item] | None = None) -> None:
        self.last_error = error = loss.error
        for node_id in loss.silent_nodes:
            self._cluster.suspect(node_id)
        self._report("gang_lost", job=job, error=error.summary, traceback=error.traceback)

    def _report(
        self, kind: GangEventKind, *, job: Job[Item] | None = None, error: str | None = None, traceback: str = ""
    ) -> None:
        self._on_event(GangEvent(kind=kind, gang=self.index, job=job, error=error, traceback=traceback or None))

    def _give_back(self) -> None:
        if self._gang is not None:
            self._gang.give_back()
        self._gang = None

    def _close(self) -> None:
        if self._gang is not None:
            self._gang.close()
        self._gang = None

    def _drop(self) -> None:
        if self._gang is not None:
            self._gang.shutdown()
        self._gang = None
