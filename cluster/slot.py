"""A slot for one gang: keeps a gang in it while there is work, and feeds it from the shared queue."""

import threading
import time
from collections.abc import Callable, Hashable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Protocol

from cluster.backlog import Backlog, Job
from cluster.events import Event, EventKind, Outcome
from cluster.failure import Budgets, Decision, FailureKind, RankError, decide, decide_start
from cluster.gang import Gang, GangLost, RunReport
from cluster.placement import GangSpec
from cluster.waiting import Stopped, pause
from cluster.worker import Workload

LOOK_FOR_PLACE_S = 2.0
# A gang that has had nothing to do for so long gives its machines back: others are running all that is left.
LONGEST_IDLE_S = 60.0


class NoPlace(Exception):
    """There is no place for this gang, and others do its work, or have done it."""


class Ground(Protocol):
    """What a slot asks about the cluster."""

    def unusable(self) -> set[str]:
        """The ids of nodes that must get no new work."""
        ...

    def suspect(self, node_id: str) -> None:
        """A rank on this node has fallen silent."""
        ...

    def why_waiting(self) -> str:
        """Why a gang finds no place."""
        ...

    def may_leave(self, slot: "Slot") -> bool:
        """Whether other gangs do the work, so that this one need not wait for a place; if so, it counts as gone."""
        ...

    def others_run(self, slot: "Slot") -> bool:
        """Whether any other slot has a gang."""
        ...


class Slot:
    """Serves the queue in a thread of its own; only that thread touches the gang."""

    def __init__(
        self,
        *,
        index: int,
        spec: GangSpec,
        workload: Workload,
        backlog: Backlog,
        ground: Ground,
        budgets: Budgets,
        tell: Callable[[Event], None],
        stop: threading.Event,
    ):
        self.index = index
        self.last_error: RankError | None = None
        self.has_given_up = False  # no gang can be started any more
        self._spec = spec
        self._workload = workload
        self._backlog = backlog
        self._ground = ground
        self._budgets = budgets
        self._tell = tell
        self._stop = stop
        self._gang: Gang | None = None
        self._shape: Hashable = None
        self._looked_s = 0.0
        self._why = ""
        self._last_busy_s = 0.0  # of time.monotonic()

    @property
    def has_gang(self) -> bool:
        return self._gang is not None

    def serve(self) -> None:
        """Runs items until each has its outcome, no gang can be had, or the stop flag is set."""
        try:
            with suppress(Stopped, NoPlace):
                while not self.has_given_up and self._backlog.is_worth_staying(self._stop, wake=self._must_close):
                    if self._must_move():
                        self._close()
                        self._say("gang_closed", error="A node of it is being drained, or does not answer.")
                    elif self._is_superfluous():
                        self._close()
                        self._say("gang_closed", error="Other gangs are running all that is left.")
                        break
                    elif self._has_gang():
                        self._run_next()
                self._close()
        finally:
            self._drop()

    def _must_close(self) -> bool:
        return self._must_move() or self._is_superfluous()

    def _is_superfluous(self) -> bool:
        """Whether the gang waits in vain: what comes back of what others run, they can run again themselves."""
        idle_s = time.monotonic() - self._last_busy_s
        return self._gang is not None and idle_s > LONGEST_IDLE_S and not self._backlog.has_waiting()

    def _must_move(self) -> bool:
        """Whether a node of the gang is about to leave; there it finishes what it runs, but begins nothing."""
        return self._gang is not None and bool(self._ground.unusable().intersection(self._gang.node_ids))

    def _has_gang(self) -> bool:
        """Starts a gang if there is none; False if that is hopeless."""
        starts = 0
        while self._gang is None:
            self._say("gang_starting")
            try:
                self._gang = self._start()
            except GangLost as loss:
                starts += 1
                self._lose(loss)
                if self._is_hopeless(loss.error.kind, starts):
                    self.has_given_up = True
                    return False
                pause(self._budgets.wait_s(starts), self._stop)
            else:
                self._last_busy_s = time.monotonic()
                self._say("gang_ready", hosts=tuple(self._gang.hosts))
        return True

    def _is_hopeless(self, kind: FailureKind, starts: int) -> bool:
        """While other gangs work, machines may come back."""
        lost = kind.policy.loses_gang
        failed = decide_start(kind, starts, self._budgets) is Decision.FAIL
        return failed and not (lost and self._ground.others_run(self))

    def _start(self) -> Gang:
        self._looked_s, self._why = 0.0, ""
        return Gang.start(
            self._spec,
            self._workload,
            self._stop,
            avoid=self._ground.unusable(),
            waiting=self._wait_for_place,
            placed=self._check_needed,
        )

    def _check_needed(self) -> None:
        """Raises NoPlace if every item has its outcome by now."""
        if not len(self._backlog):
            raise NoPlace

    def _wait_for_place(self, seconds: float) -> None:
        """Says why it takes so long. Raises NoPlace, or GangLost after the timeout if nobody else does the work."""
        if seconds - self._looked_s < LOOK_FOR_PLACE_S:
            return
        self._looked_s = seconds
        self._check_needed()
        why = self._ground.why_waiting()
        if why != self._why:
            self._why = why
            self._say("gang_waiting", error=why)
        if self._ground.may_leave(self):
            self._say("gang_closed", error=why)
            raise NoPlace
        timeout_s = self._spec.start_timeout_s
        if seconds > timeout_s and not self._ground.others_run(self):
            summary = f"A gang found no place within {timeout_s:g} s. {why}"
            raise GangLost(RankError(kind=FailureKind.INFRASTRUCTURE, summary=summary))

    def _run_next(self) -> None:
        job = self._backlog.take(self._shape)
        if job is None:
            return
        assert self._gang is not None
        if job.needs_fresh_gang and self._gang.num_runs and not self._renew_gang(job):
            return
        self._shape = job.shape
        self._say("item_started", job)
        self._settle(job, self._run(job))
        self._last_busy_s = time.monotonic()

    def _renew_gang(self, job: Job) -> bool:
        """Puts a fresh gang in place of this one; if there is none, however that ends, the job goes back."""
        self._close()
        try:
            return self._has_gang()
        finally:
            if self._gang is None:
                self._backlog.put_back(replace(job, attempts=job.attempts - 1))

    def _run(self, job: Job) -> RunReport:
        assert self._gang is not None
        try:
            report = self._gang.run(
                job.item,
                attempt=job.attempts,
                on_progress=lambda done: self._say("item_progress", job, fraction=done),
                stop=self._stop,
            )
        except GangLost as loss:
            self._lose(loss, job)
            report = RunReport(error=loss.error, is_gang_usable=False)
        else:
            if report.error and report.error.kind.policy.loses_gang:
                self._lose(GangLost(report.error), job)
        if not report.is_gang_usable:
            self._drop()
        return report

    def _settle(self, job: Job, report: RunReport) -> None:
        """Gives the job its outcome, or back to the queue."""
        if report.error is None:
            self._backlog.finish(job, self._outcome(job, result=report.result))
            self._say("item_done", job, result=report.result)
            return
        kind = report.error.kind
        job = replace(job, failures=(*job.failures, kind))
        decision = decide(kind, job.failures.count(kind), self._budgets)
        if decision is Decision.FAIL:
            self._fail(job, report.error)
        else:
            self._retry(job, report.error, fresh=decision is Decision.RETRY_ON_FRESH_GANG)

    def _retry(self, job: Job, error: RankError, fresh: bool) -> None:
        wait_s = self._budgets.wait_s(len(job.failures))
        self._say("item_retried", job, **_told(error))
        self._backlog.put_back(replace(job, needs_fresh_gang=fresh, not_before=time.monotonic() + wait_s))

    def _fail(self, job: Job, error: RankError) -> None:
        outcome = self._outcome(job, error=error.summary, traceback=error.traceback, failure=error.kind)
        self._say("item_failed", job, **_told(error))
        self._backlog.finish(job, outcome)

    def _lose(self, loss: GangLost, job: Job | None = None) -> None:
        self.last_error = loss.error
        for node_id in loss.silent_nodes:
            self._ground.suspect(node_id)
        self._say("gang_lost", job, error=loss.error.summary, traceback=loss.error.traceback)

    def _outcome(self, job: Job, **fields: Any) -> Outcome:
        return Outcome(item=job.item, attempts=job.attempts, gang=self.index, **fields)

    def _say(self, kind: EventKind, job: Job | None = None, **fields: Any) -> None:
        if job is not None:
            fields |= {"item": job.item, "index": job.index, "attempts": job.attempts}
        self._tell(Event(kind=kind, gang=self.index, **fields))

    def _close(self) -> None:
        if self._gang is not None:
            self._gang.close()
        self._gang = None

    def _drop(self) -> None:
        if self._gang is not None:
            self._gang.shutdown()
        self._gang = None


def _told(error: RankError) -> dict[str, Any]:
    # The loss of the gang has told the traceback already.
    own = error.kind.policy.is_of_item
    return {"error": error.summary, "failure": error.kind, "traceback": error.traceback if own else None}
