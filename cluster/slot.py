"""A slot for one gang: keeps a gang in it while there is work, and feeds it from the shared queue."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from cluster.backlog import Backlog, Job
from cluster.events import Event, EventKind, Outcome
from cluster.failure import Decision, FailureKind, RankError, decide, decide_start
from cluster.gang import Gang, GangLost, RunReport
from cluster.placement import GangSpec
from cluster.waiting import Stopped
from cluster.worker import Workload


class Slot:
    """Serves the queue in a thread of its own; only that thread touches the gang."""

    def __init__(
        self,
        *,
        index: int,
        spec: GangSpec,
        workload: Workload,
        backlog: Backlog,
        tell: Callable[[Event], None],
        stop: threading.Event,
    ):
        self.index = index
        self.last_error: RankError | None = None
        self._spec = spec
        self._workload = workload
        self._backlog = backlog
        self._tell = tell
        self._stop = stop
        self._gang: Gang | None = None

    def serve(self) -> None:
        """Runs items until each has its outcome, no gang can be had, or the stop flag is set."""
        try:
            with suppress(Stopped):
                while self._backlog.is_worth_staying(self._stop) and self._has_gang():
                    self._run_next()
                self._close()
        finally:
            self._drop()

    def _has_gang(self) -> bool:
        """Starts a gang if there is none; False if that is hopeless."""
        starts = 0
        while self._gang is None:
            self._say("gang_starting")
            try:
                self._gang = Gang.start(self._spec, self._workload, self._stop)
            except GangLost as loss:
                starts += 1
                self._lose(loss.error)
                if decide_start(loss.error.kind, starts) is Decision.FAIL:
                    return False
            else:
                self._say("gang_ready", hosts=tuple(self._gang.hosts))
        return True

    def _run_next(self) -> None:
        job = self._backlog.take()
        if job is None:
            return
        assert self._gang is not None
        self._say("item_started", job)
        try:
            report = self._gang.run(job.item, on_progress=lambda done: self._progress(job, done), stop=self._stop)
        except GangLost as loss:
            report = RunReport(error=loss.error, is_gang_usable=False)
        if not report.is_gang_usable:
            self._drop()
        self._settle(job, report)

    def _settle(self, job: Job, report: RunReport) -> None:
        """Gives the job its outcome, or back to the queue."""
        if report.error is None:
            self._backlog.finish(job, self._outcome(job, result=report.result))
            self._say("item_done", job, result=report.result)
            return
        if report.error.kind is FailureKind.INFRASTRUCTURE:
            self._lose(report.error, job)
        if decide(report.error.kind, job.attempts) is Decision.RETRY:
            self._backlog.put_back(job)
            return
        self._fail(job, report.error)

    def _fail(self, job: Job, error: RankError) -> None:
        outcome = self._outcome(job, error=error.summary, traceback=error.traceback, failure=error.kind)
        self._backlog.finish(job, outcome)
        # The loss of the gang has told the traceback already.
        traceback = error.traceback if error.kind is FailureKind.ITEM else None
        self._say("item_failed", job, error=error.summary, traceback=traceback)

    def _lose(self, error: RankError, job: Job | None = None) -> None:
        self.last_error = error
        self._say("gang_lost", job, error=error.summary, traceback=error.traceback)

    def _progress(self, job: Job, fraction: float) -> None:
        self._say("item_progress", job, fraction=fraction)

    def _outcome(self, job: Job, **fields: Any) -> Outcome:
        return Outcome(item=job.item, attempts=job.attempts, gang=self.index, **fields)

    def _say(self, kind: EventKind, job: Job | None = None, **fields: Any) -> None:
        if job is not None:
            fields |= {"item": job.item, "index": job.index, "attempts": job.attempts}
        self._tell(Event(kind=kind, gang=self.index, **fields))

    def _close(self) -> None:
        if self._gang is not None:
            self._gang.close()

    def _drop(self) -> None:
        if self._gang is not None:
            self._gang.shutdown()
        self._gang = None
