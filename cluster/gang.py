"""A gang: workers that start together, run one item together, and die together."""

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from cluster.failure import FailureKind, RankError, is_gang_usable, root_cause
from cluster.placement import GangSpec, release, reserve
from cluster.heartbeat import Pulse
from cluster.ranks import RankContext, assign_ranks
from cluster.waiting import TICK_S, Patience, check_stop
from cluster.worker import RankReport, Worker, Workload

# How long the other ranks get to come back after one has raised; then they count as stuck in a collective.
GRACE_S = 5.0
CLOSE_TIMEOUT_S = 10.0
STACKS_TIMEOUT_S = 3.0
# A process that imports its libraries and loads a model may not get to answer for a while.
START_SILENCE_S = 60.0


class GangLost(RuntimeError):
    """A gang could not be started, or lost a rank; `error` tells why, `silent_nodes` where ranks do not answer."""

    def __init__(self, error: RankError, silent_nodes: Sequence[str] = ()):
        super().__init__(error.summary)
        self.error = error
        self.silent_nodes = silent_nodes


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """How an item ended on a gang: a result or an error, and whether the gang can go on."""

    result: Any = None
    error: RankError | None = None
    is_gang_usable: bool = True


class Gang:
    """Workers in rank order in one placement group. Fail-stop: once it is lost it is shut down, never repaired."""

    def __init__(self, spec: GangSpec, placement: Any):
        self.hosts: list[str] = []
        self.node_ids: list[str] = []
        self.num_runs = 0
        self._spec = spec
        self._placement = placement
        self._workers: list[Any] = []

    @classmethod
    def start(
        cls,
        spec: GangSpec,
        workload: Workload,
        stop: threading.Event | None = None,
        *,
        avoid: Iterable[str] = (),
        waiting: Callable[[float], None] = lambda seconds: None,
        placed: Callable[[], None] = lambda: None,
    ) -> "Gang":
        """Places the workers, joins them in a process group and builds their sessions, all at the same time.

        While there is no place yet, `waiting` is called with the seconds so far, and once there is one `placed`, before
        anything is started; both end it by raising. Nodes with ids in `avoid` are not taken. Raises GangLost (kind
        START if the workload itself raised) or Stopped; nothing is left behind then.
        """
        gang = cls(spec, reserve(spec, avoid))
        try:
            _await_placement(gang._placement, stop or threading.Event(), waiting)
            placed()
            gang._build(workload, stop or threading.Event())
        except BaseException as error:
            gang.shutdown()
            if isinstance(error, RayError | TimeoutError):
                raise GangLost(_start_error(error)) from error
            raise
        return gang

    def run(
        self,
        item: Any,
        *,
        attempt: int = 1,
        on_progress: Callable[[float], None] = lambda fraction: None,
        stop: threading.Event | None = None,
    ) -> RunReport:
        """Runs one item to its end. Raises GangLost when a rank dies, and Stopped; the caller then shuts down."""
        self.num_runs += 1
        pulse, progress = self._pulse(), None
        refs = {rank: worker.run.remote(item, attempt) for rank, worker in enumerate(self._workers)}
        reports: dict[int, RankReport] = {}
        grace_ends: float | None = None
        while refs:
            check_stop(stop or threading.Event())
            reports |= self._arrived(refs)
            if grace_ends is None and any(report.error for report in reports.values()):
                grace_ends = time.monotonic() + GRACE_S
            if grace_ends is not None and time.monotonic() > grace_ends:
                break
            self._check(pulse)
            if pulse.progress is not None and pulse.progress != progress:
                progress = pulse.progress
                on_progress(progress)
        return _judge(reports, num_missing=len(refs))

    def close(self) -> None:
        """Lets the sessions close in an orderly way, then shuts the gang down."""
        try:
            Patience(CLOSE_TIMEOUT_S).collect([worker.close.remote() for worker in self._workers])
        except (RayError, TimeoutError):
            pass  # It is going away in any case.
        finally:
            self.shutdown()

    def shutdown(self) -> None:
        """Kills every worker and gives the placement group back; may be called again."""
        for worker in self._workers:
            ray.kill(worker)
        self._workers = []
        release(self._placement)

    def _build(self, workload: Workload, stop: threading.Event) -> None:
        spec, patience = self._spec, Patience(self._spec.start_timeout_s, stop)
        self._workers = [_actor(spec, self._placement, index) for index in range(spec.world_size)]
        members = patience.collect([worker.describe.remote() for worker in self._workers])
        contexts = assign_ranks(members)
        order = sorted(range(spec.world_size), key=lambda index: contexts[index].rank)
        self._workers = [self._workers[index] for index in order]
        self.hosts = [members[index].host for index in order]
        self.node_ids = [members[index].node_id for index in order]
        self._begin([contexts[index] for index in order], workload, patience)

    def _begin(self, contexts: list[RankContext], workload: Workload, patience: Patience) -> None:
        spec, pulse = self._spec, self._pulse(START_SILENCE_S)
        timeouts = spec.start_timeout_s, spec.collective_timeout_s
        opening = self._workers[0].open_store.remote(spec.world_size, spec.start_timeout_s)
        [address] = patience.collect([opening])
        building = [
            worker.begin.remote(context, address, workload, *timeouts)
            for worker, context in zip(self._workers, contexts, strict=True)
        ]
        patience.collect(building, check=_refuse_failed_start, meanwhile=lambda: self._check(pulse))

    def _pulse(self, least_silence_s: float = 0.0) -> Pulse:
        # The ranks' own deadline ends a wait in a collective, and names who is missing: it comes first.
        standstill_s = self._spec.collective_timeout_s + 2 * GRACE_S
        silence_s = max(self._spec.silence_s, least_silence_s)
        return Pulse(self._workers, silence_s=silence_s, standstill_s=standstill_s)

    def _check(self, pulse: Pulse) -> None:
        """Raises GangLost for a rank that is silent or a session that stands still."""
        pulse.look()
        if silent := pulse.silent():
            names = ", ".join(f"rank {rank} on {self.hosts[rank]}" for rank in silent)
            summary = f"No answer for {pulse.silence_s:g} s from {names} (stopped, or cut off)."
            error = RankError(kind=FailureKind.INFRASTRUCTURE, summary=summary)
            raise GangLost(error, silent_nodes=[self.node_ids[rank] for rank in silent])
        if pulse.stands_still():
            summary = f"No progress for {self._spec.collective_timeout_s:g} s; every rank answers, but the work hangs."
            raise GangLost(RankError(kind=FailureKind.INFRASTRUCTURE, summary=summary, traceback=self._stacks()))

    def _stacks(self) -> str:
        """What each rank is doing, as far as they tell."""
        asked = [worker.stacks.remote() for worker in self._workers]
        answered, _ = ray.wait(asked, num_returns=len(asked), timeout=STACKS_TIMEOUT_S)
        told = [(rank, _value_or_none(ref)) for rank, ref in enumerate(asked) if ref in answered]
        return "\n".join(f"Rank {rank}:\n{text}" for rank, text in told if text)

    def _arrived(self, refs: dict[int, Any]) -> dict[int, RankReport]:
        """Waits at most a tick; takes the reports that have come out of `refs`."""
        ready, _ = ray.wait(list(refs.values()), num_returns=len(refs), timeout=TICK_S)
        ranks = [rank for rank, ref in refs.items() if ref in ready]
        return {rank: self._fetch(rank, refs.pop(rank)) for rank in ranks}

    def _fetch(self, rank: int, ref: Any) -> RankReport:
        try:
            return ray.get(ref)
        except RayTaskError as error:  # The item or its result cannot be pickled.
            return RankReport(error=RankError(kind=FailureKind.ITEM, summary=_last_line(error), traceback=str(error)))
        except RayError as error:
            raise GangLost(_infrastructure(f"Rank {rank} on {self.hosts[rank]} was lost", error)) from error


def _await_placement(placement: Any, stop: threading.Event, waiting: Callable[[float], None]) -> None:
    started = time.monotonic()
    while not placement.wait(TICK_S):
        check_stop(stop)
        waiting(time.monotonic() - started)


def _actor(spec: GangSpec, placement: Any, index: int) -> Any:
    place = PlacementGroupSchedulingStrategy(
        placement_group=placement, placement_group_bundle_index=index // spec.together
    )
    remote = ray.remote(Worker).options(  # pyright: ignore[reportAttributeAccessIssue]
        num_cpus=spec.num_cpus_per_rank, num_gpus=spec.num_gpus_per_rank, scheduling_strategy=place
    )
    return remote.remote(dict(spec.env), max(1, int(spec.num_cpus_per_rank)), spec.num_gpus_per_rank == 0)


def _refuse_failed_start(report: RankReport) -> None:
    if report.error is None:
        return
    is_own = report.error.kind.policy.is_of_item
    raise GangLost(replace(report.error, kind=FailureKind.START) if is_own else report.error)


def _start_error(error: RayError | TimeoutError) -> RankError:
    if isinstance(error, RayTaskError):  # The workload cannot be unpickled, say, because its module is missing.
        return RankError(kind=FailureKind.START, summary=_last_line(error), traceback=str(error))
    return _infrastructure("A gang could not start", error)


def _infrastructure(what: str, error: Exception) -> RankError:
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return RankError(kind=FailureKind.INFRASTRUCTURE, summary=f"{what}: {first_line}", traceback=str(error))


def _last_line(error: RayTaskError) -> str:
    return str(error).strip().splitlines()[-1]


def _value_or_none(ref: Any) -> Any:
    try:
        return ray.get(ref)
    except RayError:
        return None


def _judge(reports: dict[int, RankReport], num_missing: int) -> RunReport:
    errors = [report.error for _, report in sorted(reports.items()) if report.error]
    if not errors:
        return RunReport(result=reports[0].value)
    return RunReport(error=root_cause(errors), is_gang_usable=is_gang_usable(errors, num_missing))
