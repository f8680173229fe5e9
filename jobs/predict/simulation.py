"""A batch on a virtual clock: gangs load, render, fail and are lost, by the queue and the decisions of real ones."""

import heapq
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from random import Random

from cluster.backlog import Backlog
from cluster.events import Outcome
from cluster.failure import Decision, FailureKind, RankError, decide, decide_start
from cluster.job import Job
from jobs.predict.places import Places
from jobs.predict.scenario import Scenario, Tally

HOUR_S = 3600.0


@dataclass(kw_only=True, eq=False)
class Gang:
    """What stands in a slot. `turn` changes whenever what it was about to do is off."""

    index: int
    nodes: tuple[int, ...] = ()
    turn: int = 0
    starts: int = 0
    runs: int = 0
    is_ready: bool = False
    job: Job[int] | None = None
    """What it renders."""
    reserved: Job[int] | None = None
    """What it will render next: it was started for that, or waits to try it again."""
    began: float = 0.0
    pace: float = 1.0
    """Seconds that a second of undisturbed work takes in this run."""


def simulate(scenario: Scenario) -> Tally:
    """From the first start to the last outcome."""
    return Simulation(scenario).run()


class Simulation:
    """Events in their order; each is an action at a time."""

    def __init__(self, scenario: Scenario):
        self.scenario, self.now = scenario, 0.0
        # Apart, so that a batch without losses is otherwise the same.
        self._luck, self._losses = Random(scenario.seed), Random(f"losses {scenario.seed}")
        self._pace = [self._luck.lognormvariate(0, scenario.spread) for _ in scenario.seconds]
        jobs = [Job(index=index, item=index, cost=seconds) for index, seconds in enumerate(scenario.seconds)]
        self.backlog: Backlog[int, bool] = Backlog(jobs, clock=lambda: self.now)
        self.places = Places(scenario.spec, scenario.nodes)
        self.tally = Tally(renderings=[0] * len(jobs))
        self._left = list(scenario.seconds)
        self._running: set[int] = set()
        self._gangs = [Gang(index=index) for index in range(scenario.gangs)]
        self._idle: list[Gang] = []
        self._waiting: list[Gang] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = count()
        slow = [self._luck.random() < scenario.slow_nodes for _ in scenario.nodes]
        self._slowness = [scenario.slowness if each else 1.0 for each in slow]

    def run(self) -> Tally:
        for node in range(len(self.scenario.nodes)):
            self._plan_loss(node)
        for gang in self._gangs:
            self._start(gang)
        while len(self.backlog) and self._events:
            self.now, _, action = heapq.heappop(self._events)
            action()
        self.backlog.give_up(RankError(kind=FailureKind.START, summary="No gang was left to run it."))
        self.tally.seconds, self.tally.outcomes = self.now, self.backlog.take_outcomes()
        return self.tally

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._numbers), action))

    def _then(self, gang: Gang, seconds: float, action: Callable[[], None]) -> None:
        """Unless something happens to the gang before."""
        turn = gang.turn

        def act() -> None:
            if gang.turn == turn:
                action()

        self._after(seconds, act)

    # Gangs

    def _start(self, gang: Gang) -> None:
        nodes = self.places.take()
        if nodes is None:
            self._release(gang)
            self._waiting.append(gang)
            return
        gang.nodes, gang.runs = nodes, 0
        self.tally.loading_s += self.scenario.load_s
        fails = self._luck.random() < self.scenario.start_failures
        self._then(gang, self.scenario.load_s, lambda: self._lose(gang) if fails else self._is_up(gang))

    def _is_up(self, gang: Gang) -> None:
        gang.is_ready, gang.starts = True, 0
        job, gang.reserved = gang.reserved, None
        self._run(gang, job) if job else self._serve(gang)

    def _lose(self, gang: Gang) -> None:
        """The gang is gone; it is started again as a slot does it."""
        self._drop(gang)
        self._release(gang)
        self.tally.gang_losses += 1
        gang.starts += 1
        hopeless = decide_start(FailureKind.INFRASTRUCTURE, gang.starts, self.scenario.budgets) is Decision.FAIL
        if not hopeless or any(other.is_ready for other in self._gangs):
            self._then(gang, self.scenario.budgets.wait_s(gang.starts), lambda: self._start(gang))

    def _release(self, gang: Gang) -> None:
        """What it was started for goes back."""
        if job := gang.reserved:
            gang.reserved = None
            self._put_back(replace(job, attempts=job.attempts - 1))

    def _drop(self, gang: Gang) -> None:
        self.places.give_back(gang.nodes)
        gang.nodes, gang.is_ready = (), False
        gang.turn += 1
        self._let_wait_no_longer()

    def _let_wait_no_longer(self) -> None:
        waiting, self._waiting = self._waiting, []
        for gang in waiting:
            self._start(gang)

    # Videos

    def _serve(self, gang: Gang) -> None:
        job = self.backlog.take()
        if job is None:
            self._idle.append(gang)
        elif job.needs_fresh_gang and gang.runs:
            gang.reserved = job
            self._drop(gang)
            self._start(gang)
        else:
            self._run(gang, job)

    def _run(self, gang: Gang, job: Job[int]) -> None:
        assert job.index not in self._running, "Two gangs render one video."
        self._running.add(job.index)
        gang.job, gang.began = job, self.now
        gang.runs += 1
        gang.pace = max(self._slowness[node] for node in gang.nodes) * self._pace[job.index]
        seconds = self._left[job.index] * gang.pace
        kind, part = self._fate()
        self._then(gang, seconds * part, lambda: self._finish(gang) if kind is None else self._fail(gang, kind))

    def _fate(self) -> tuple[FailureKind | None, float]:
        """How a run ends, and after what part of it."""
        drawn = self._luck.random()
        for kind, rate in self.scenario.failure_rates.items():
            if drawn < rate:
                return kind, self._luck.random()
            drawn -= rate
        return None, 1.0

    def _take_down(self, gang: Gang) -> Job[int]:
        """The gang's run has ended; what of it is kept need not be done again."""
        job = gang.job
        assert job is not None
        gang.job = None
        self._running.discard(job.index)
        self.tally.busy_s += self.now - gang.began
        return job

    def _finish(self, gang: Gang) -> None:
        job = self._take_down(gang)
        self.tally.renderings[job.index] += 1
        self.backlog.finish(job, Outcome(item=job.item, attempts=job.attempts, result=True))
        self._serve(gang)

    def _fail(self, gang: Gang, kind: FailureKind) -> None:
        """What a slot does with a job that has failed."""
        began, job = gang.began, self._take_down(gang)
        self._keep(job, (self.now - began) / gang.pace)
        job = replace(job, failures=(*job.failures, kind))
        decision = decide(kind, job.failures.count(kind), self.scenario.budgets)
        if kind.policy.loses_gang:
            self._lose(gang)
        if decision is Decision.FAIL:
            self.backlog.finish(job, Outcome.of_failure(job, RankError(kind=kind, summary=kind.value)))
        else:
            self._retry(gang, job, kind, fresh=decision is Decision.RETRY_ON_FRESH_GANG)
            if kind.policy.holds_gang:
                return
        if gang.is_ready:
            self._serve(gang)

    def _retry(self, gang: Gang, job: Job[int], kind: FailureKind, *, fresh: bool) -> None:
        self.tally.retries += 1
        wait_s = self.scenario.budgets.wait_s(len(job.failures))
        if kind.policy.holds_gang:
            gang.reserved = replace(job, attempts=job.attempts + 1)
            self._then(gang, wait_s, lambda: self._is_up(gang))
        else:
            self._put_back(replace(job, needs_fresh_gang=fresh, not_before=self.now + wait_s))

    def _keep(self, job: Job[int], done_s: float) -> None:
        """Of what was done, as far as the last checkpoint."""
        every = self.scenario.checkpoint_s
        kept = math.floor(done_s / every) * every if every else 0.0
        self.tally.wasted_s += done_s - kept
        self._left[job.index] -= kept

    def _put_back(self, job: Job[int]) -> None:
        self.backlog.put_back(job)
        self._after(max(0.0, job.not_before - self.now), self._wake)

    def _wake(self) -> None:
        if self._idle:
            self._serve(self._idle.pop())

    # Nodes

    def _plan_loss(self, node: int) -> None:
        if self.scenario.loss_hours is not None:
            self._after(
                self._losses.expovariate(1 / (self.scenario.loss_hours * HOUR_S)), lambda: self._lose_node(node)
            )

    def _lose_node(self, node: int) -> None:
        self.tally.node_losses += 1
        self.places.lose(node)
        for gang in self._gangs:
            if node in gang.nodes:
                gang.turn += 1  # nothing more comes of it, though nobody knows yet
                if gang in self._idle:
                    self._idle.remove(gang)
                self._then(gang, self.scenario.notice_s, lambda gang=gang: self._notice(gang))
        self._after(self.scenario.repair_s, lambda: self._repair(node))

    def _notice(self, gang: Gang) -> None:
        if gang.job:
            self._fail(gang, FailureKind.INFRASTRUCTURE)
        else:
            self._lose(gang)

    def _repair(self, node: int) -> None:
        self.places.mend(node)
        self._plan_loss(node)
        self._let_wait_no_longer()
