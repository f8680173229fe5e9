"""A gang: workers that start together, run one item together, and die together."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Self

import ray
from ray import ObjectRef
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import PlacementGroup

from cluster.failure import FailureKind, RankError, is_gang_usable, root_cause
from cluster.heartbeat import LEADER, HeartbeatMonitor
from cluster.place import Place
from cluster.placement import GangSpec
from cluster.ranks import RankContext, assign_ranks
from cluster.remote import RemoteWorker
from cluster.session import Item, Result, Workload
from cluster.waiting import LOOK, Deadline, Pace, Value, any_arrived, arrived, check_stop
from cluster.worker import RankReport, RankResult
from cluster.worker_starts import WorkerStarts

# How long the other ranks get to come back after one has raised; then they count as stuck in a collective.
GRACE_S = 5.0
# How long the reports of the other ranks are waited for when one has come: in most cases all end at the same time.
TOGETHER_S = 0.2
CLOSE_TIMEOUT_S = 10.0
STACKS_TIMEOUT_S = 3.0
# A process that imports its libraries and loads a model may not get to answer for a while.
START_SILENCE_S = 60.0


class GangLost(RuntimeError):
    """A gang could not be started, or lost a rank; `error` says why, `silent_nodes` where ranks do not answer."""

    def __init__(self, error: RankError, silent_nodes: Sequence[str] = ()):
        super().__init__(error.summary)
        self.error = error
        self.silent_nodes = silent_nodes


@dataclass(frozen=True, kw_only=True)
class RunFailure:
    """How an item failed on a gang, and whether the gang can go on."""

    error: RankError
    is_gang_usable: bool = True


class Gang(Generic[Item, Result]):
    """Workers in rank order in one place. Fail-stop: once it is lost it is shut down, never repaired."""

    was_warm = False
    """Whether another batch has started it."""
    is_shared = False
    """Whether others may use it, too."""

    def __init__(self, spec: GangSpec, place: Place[Item, Result], workload: Workload[Item, Result]):
        self.hosts: list[str] = []
        self.node_ids: list[str] = []
        self.num_runs = 0
        self._spec = spec
        self._place = place
        self._workload = workload
        self._starts = WorkerStarts.of_this_node()
        self._workers: list[RemoteWorker[Item, Result]] = []

    @classmethod
    def start(
        cls,
        spec: GangSpec,
        place: Place[Item, Result],
        workload: Workload[Item, Result],
        stop: threading.Event,
        *,
        waiting: Callable[[float], None],
        placed: Callable[[], None],
    ) -> Self:
        """Places the workers, prepares their nodes, joins them in a process group and builds their sessions.

        While there is no place yet, `waiting` is called with the seconds so far, and once there is one `placed`, before
        anything is started; both end it by raising. Raises GangLost (kind START if the workload itself raised) or
        Stopped; nothing is left behind then.
        """
        gang = cls(spec, place, workload)
        try:
            _await_placement(place.group, stop, waiting)
            placed()
            gang._build(stop)
        except BaseException as error:
            gang.shutdown()
            if isinstance(error, RayError | TimeoutError):
                raise GangLost(start_error(error)) from error
            raise
        return gang

    def take_turn(self, stop: threading.Event, is_wanted: Callable[[], bool]) -> bool:
        """Whether an item can be run now: another batch may have the turn, and is waited for while that `is_wanted`.

        That is asked at first, and then every few seconds. Raises GangLost and Stopped.
        """
        return True

    def rest(self) -> None:
        """There is no item at the moment; another batch may run its own meanwhile."""

    def run(
        self,
        item: Item,
        *,
        attempt: int,
        on_progress: Callable[[float], None],
        stop: threading.Event,
        pace: Pace = LEADER,
    ) -> RankResult[Result] | RunFailure:
        """Runs one item to its end; its result is that of rank 0, which is asked for its progress at that pace.

        Raises GangLost when a rank dies, and Stopped, once `interrupt` or a heartbeat wakes it; the caller then shuts
        down.
        """
        self.num_runs += 1
        monitor, progress = self._monitor(pace=pace), None
        refs = {rank: worker.run(item, attempt) for rank, worker in enumerate(self._workers)}
        reports: dict[int, RankReport[Result]] = {}
        grace_ends = math.inf
        while refs:
            wait_s = min(monitor.wait_s, max(0.0, grace_ends - time.monotonic()))
            came = any_arrived([*refs.values(), *monitor.pending], wait_s)
            check_stop(stop)
            if came in refs.values():
                reports |= self._arrived(refs, TOGETHER_S)
            if grace_ends == math.inf and any(isinstance(report, RankError) for report in reports.values()):
                grace_ends = time.monotonic() + GRACE_S
            if time.monotonic() > grace_ends:
                break
            self._check(monitor)
            if monitor.progress is not None and monitor.progress != progress:
                progress = monitor.progress
                on_progress(progress)
        return _judge(reports, num_missing=len(refs))

    def interrupt(self) -> None:
        """Makes a `run` in another thread come back, once the stop flag is set: its ranks die."""
        for worker in list(self._workers):
            worker.kill()

    def give_back(self) -> None:
        """This batch needs it no longer."""
        self.close()

    def close(self) -> None:
        """Lets the sessions close in an orderly way, then shuts the gang down."""
        try:
            Deadline(CLOSE_TIMEOUT_S).collect([worker.close() for worker in self._workers])
        except (RayError, TimeoutError):
            pass  # It is going away in any case.
        finally:
            self.shutdown()

    def shutdown(self) -> None:
        """Kills every worker and gives the place back; may be called again."""
        self._workers = []
        self._place.release()

    def _build(self, stop: threading.Event) -> None:
        spec, deadline = self._spec, Deadline(self._spec.start_timeout_s, stop)
        self._workers = self._place.start_workers()
        members = deadline.collect([worker.describe() for worker in self._workers], meanwhile=self._check_starts)
        contexts = assign_ranks(members)
        order = sorted(range(spec.world_size), key=lambda index: contexts[index].rank)
        self._workers = [self._workers[index] for index in order]
        self.hosts = [members[index].host for index in order]
        self.node_ids = [members[index].node_id for index in order]
        contexts = [contexts[index] for index in order]
        self._prepare(contexts, self._workload, stop)
        self._begin(contexts, Deadline(spec.start_timeout_s, stop))

    def _check_starts(self) -> None:
        """Raises GangLost if a rank's process has ended before it could answer."""
        if said := self._starts.failed():
            summary = f"The process of a rank ended at its start: {said.splitlines()[-1]}"
            raise GangLost(RankError(kind=FailureKind.START, summary=summary, traceback=said))

    def _prepare(self, contexts: list[RankContext], workload: Workload[Item, Result], stop: threading.Event) -> None:
        """Has the first rank of each node fetch what is needed there: no clock runs, but each rank has to answer."""
        monitor = self._monitor(START_SILENCE_S)
        preparing = [
            worker.prepare(context, workload)
            for worker, context in zip(self._workers, contexts, strict=True)
            if context.local_rank == 0
        ]
        Deadline(math.inf, stop).collect(preparing, check=refuse_failed_start, meanwhile=lambda: self._check(monitor))

    def _begin(self, contexts: list[RankContext], deadline: Deadline) -> None:
        spec, monitor = self._spec, self._monitor(START_SILENCE_S)
        timeouts = spec.start_timeout_s, spec.collective_timeout_s
        opening = self._workers[0].open_store(spec.world_size, spec.start_timeout_s)
        [address] = deadline.collect([opening])
        building = [
            worker.begin(context, address, self._workload, *timeouts)
            for worker, context in zip(self._workers, contexts, strict=True)
        ]
        deadline.collect(building, check=refuse_failed_start, meanwhile=lambda: self._check(monitor))

    def _monitor(self, least_silence_s: float = 0.0, pace: Pace = LEADER) -> HeartbeatMonitor:
        # The ranks' own deadline ends a wait in a collective, and names who is missing: it comes first.
        standstill_s = self._spec.collective_timeout_s + 2 * GRACE_S
        silence_s = max(self._spec.silence_s, least_silence_s)
        return HeartbeatMonitor(self._workers, silence_s=silence_s, standstill_s=standstill_s, pace=pace)

    def _check(self, monitor: HeartbeatMonitor) -> None:
        """Raises GangLost for a rank that is silent or waits in vain, and for a session that stands still."""
        monitor.poll()
        if silent := monitor.silent():
            names = ", ".join(f"rank {rank} on {self.hosts[rank]}" for rank in silent)
            summary = f"No answer for {monitor.silence_s:g} s from {names} (stopped, or cut off)."
            error = RankError(kind=FailureKind.INFRASTRUCTURE, summary=summary)
            raise GangLost(error, silent_nodes=[self.node_ids[rank] for rank in silent])
        hang = monitor.overdue()
        if hang is None and monitor.stands_still():
            hang = f"No progress for {self._spec.collective_timeout_s:g} s; every rank answers, but the work hangs."
        if hang is not None:
            raise GangLost(RankError(kind=FailureKind.INFRASTRUCTURE, summary=hang, traceback=self._stacks()))

    def _stacks(self) -> str:
        """What each rank is doing, of those that answer."""
        asked = [worker.stacks() for worker in self._workers]
        answered = arrived(asked, STACKS_TIMEOUT_S)
        stacks = [(rank, _value_or_none(ref)) for rank, ref in enumerate(asked) if ref in answered]
        return "\n".join(f"Rank {rank}:\n{text}" for rank, text in stacks if text)

    def _arrived(
        self, refs: dict[int, ObjectRef[RankReport[Result]]], timeout_s: float
    ) -> dict[int, RankReport[Result]]:
        """Waits at most so long; takes the reports that have come out of `refs`."""
        ready = arrived(list(refs.values()), timeout_s)
        ranks = [rank for rank, ref in refs.items() if ref in ready]
        came = [refs.pop(rank) for rank in ranks]
        try:
            return dict(zip(ranks, ray.get(came), strict=True))  # at once, which is quicker
        except RayError:
            return {rank: self._fetch(rank, ref) for rank, ref in zip(ranks, came, strict=True)}

    def _fetch(self, rank: int, ref: ObjectRef[RankReport[Result]]) -> RankReport[Result]:
        try:
            return ray.get(ref)
        except RayTaskError as error:  # The item or its result cannot be pickled.
            return RankError(kind=FailureKind.ITEM, summary=_last_line(error), traceback=str(error))
        except RayError as error:
            raise GangLost(_infrastructure(f"Rank {rank} on {self.hosts[rank]} was lost", error)) from error


def _await_placement(placement: PlacementGroup, stop: threading.Event, waiting: Callable[[float], None]) -> None:
    # Its own `wait` takes whole seconds: with less it does not wait at all.
    began, waited_s, ready = time.monotonic(), 0.0, placement.ready()
    while not arrived([ready], LOOK.period_s(waited_s)):
        check_stop(stop)
        waited_s = time.monotonic() - began
        waiting(waited_s)


def refuse_failed_start(report: RankReport[None]) -> None:
    if isinstance(report, RankError):
        raise GangLost(replace(report, kind=FailureKind.START) if report.kind.policy.is_of_item else report)


def start_error(error: RayError | TimeoutError) -> RankError:
    if isinstance(error, RayTaskError):  # The workload cannot be unpickled, say, because its module is missing.
        return RankError(kind=FailureKind.START, summary=_last_line(error), traceback=str(error))
    late = " within its start timeout" if isinstance(error, TimeoutError) else ""
    return _infrastructure(f"A gang could not start{late}", error)


def _infrastructure(what: str, error: Exception) -> RankError:
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return RankError(kind=FailureKind.INFRASTRUCTURE, summary=f"{what}: {first_line}", traceback=str(error))


def _last_line(error: RayTaskError) -> str:
    return str(error).strip().splitlines()[-1]


def _value_or_none(ref: ObjectRef[Value]) -> Value | None:
    try:
        return ray.get(ref)
    except RayError:
        return None


def _judge(reports: dict[int, RankReport[Result]], num_missing: int) -> RankResult[Result] | RunFailure:
    ordered = [report for _, report in sorted(reports.items())]
    errors = [report for report in ordered if isinstance(report, RankError)]
    if errors:
        return RunFailure(error=root_cause(errors), is_gang_usable=is_gang_usable(errors, num_missing))
    return next(report for report in ordered if isinstance(report, RankResult))
