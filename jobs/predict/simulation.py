"""A batch on a virtual clock: gangs load, render, fail and are lost, by the queue and the decisions of real ones."""

import math
from dataclasses import dataclass, replace
from random import Random

from cluster.backlog import Backlog
from cluster.events import Outcome
from cluster.failure import Decision, FailureKind, RankError, decide, decide_start
from cluster.job import Job
from jobs.predict.places import Places
from jobs.predict.scenario import Scenario, Strike, Tally
from jobs.predict.timeline import Action, Planned, Timeline

HOUR_S = 3600.0


@dataclass(kw_only=True, eq=False)
class Gang:
    """What stands in a slot."""

    index: int
    nodes: tuple[int, ...] = ()
    next: Planned | None = None
    """What it is about to do."""
    starts: int = 0
    runs: int = 0
    is_ready: bool = False
    job: Job[int] | None = None
    """What it renders."""
    reserved: Job[int] | None = None
    """What it will render next: it was started for that, or waits to try it again."""
    began_s: float = 0.0
    began_work: float = 0.0
    """When it began with that, by the clock, and by what had been worked until then."""
    ended_work: float | None = None
    """The latter when nothing more came of it."""
    pace: float = 1.0
    """Seconds that a second of undisturbed work takes in this run."""


def simulate(scenario: Scenario) -> Tally:
    """From the first start to the last outcome."""
    return Simulation(scenario).run()


class Simulation:
    """Events in their order; each is an action at a time."""

    def __init__(self, scenario: Scenario):
        self.scenario, self.timeline = scenario, Timeline(scenario.cores)
        # Apart, so that a batch without losses is otherwise the same.
        self._luck, self._losses = Random(scenario.seed), Random(f"losses {scenario.seed}")
        self._pace = [self._luck.lognormvariate(0, scenario.spread) for _ in scenario.seconds]
        jobs = [Job(index=index, item=index, cost=seconds) for index, seconds in enumerate(scenario.seconds)]
        self.backlog: Backlog[int, bool] = Backlog(jobs, clock=lambda: self.timeline.now)
        self.places = Places(scenario.spec, scenario.nodes)
        self.tally = Tally(renderings=[0] * len(jobs))
        self._left = list(scenario.seconds)
        self._running: set[int] = set()
        self._gangs = [Gang(index=index) for index in range(scenario.gangs)]
        self._idle: list[Gang] = []
        self._waiting: list[Gang] = []
        slow = [self._luck.random() < scenario.slow_nodes for _ in scenario.nodes]
        self._slowness = [scenario.slowness if each else 1.0 for each in slow]

    def run(self) -> Tally:
        for node in range(len(self.scenario.nodes)):
            self._plan_loss(node)
        for strike in self.scenario.strikes:
            self.timeline.after(strike.at_s, lambda strike=strike: self._strike(strike))
        for gang in self._gangs:
            self._start(gang)
        while len(self.backlog) and self.timeline.step():
            pass
        self.backlog.give_up(RankError(kind=FailureKind.START, summary="No gang was left to run it."))
        self.tally.seconds, self.tally.outcomes = self.timeline.now, self.backlog.take_outcomes()
        return self.tally

    def _wait(self, gang: Gang, seconds: float, action: Action) -> None:
        """Unless something happens to the gang before."""
        gang.next = self.timeline.after(seconds, action)

    def _work(self, gang: Gang, seconds: float, action: Action) -> None:
        """The same, of what takes a core."""
        gang.next = self.timeline.work(seconds, action)

    def _halt(self, gang: Gang) -> None:
        """What it was about to do is off."""
        if gang.next:
            self.timeline.call_off(gang.next)
        if gang.ended_work is None:
            gang.ended_work = self.timeline.worked

    # Gangs

    def _start(self, gang: Gang) -> None:
        nodes = self.places.take()
        if nodes is None:
            self._release(gang)
            self._waiting.append(gang)
            return
        gang.nodes, gang.runs, gang.ended_work = nodes, 0, None
        self.tally.loading_s += self.scenario.load_s
        fails = self._luck.random() < self.scenario.start_failures
        self._work(gang, self.scenario.load_s, lambda: self._lose(gang) if fails else self._is_up(gang))

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
            self._wait(gang, self.scenario.budgets.wait_s(gang.starts), lambda: self._start(gang))

    def _release(self, gang: Gang) -> None:
        """What it was started for goes back."""
        if job := gang.reserved:
            gang.reserved = None
            self._put_back(replace(job, attempts=job.attempts - 1))

    def _drop(self, gang: Gang) -> None:
        self.places.give_back(gang.nodes)
        gang.nodes, gang.is_ready = (), False
        self._halt(gang)
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
        gang.job, gang.began_s = job, self.timeline.now
        gang.began_work, gang.ended_work = self.timeline.worked, None
        gang.runs += 1
        gang.pace = max(self._slowness[node] for node in gang.nodes) * self._pace[job.index]
        seconds = self._left[job.index] * gang.pace
        kind, part = self._fate()
        self._work(gang, seconds * part, lambda: self._finish(gang) if kind is None else self._fail(gang, kind))

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
        self.tally.busy_s += self.timeline.now - gang.began_s
        return job

    def _finish(self, gang: Gang) -> None:
        job = self._take_down(gang)
        self.tally.renderings[job.index] += 1
        self.backlog.finish(job, Outcome(item=job.item, attempts=job.attempts, result=True))
        self._serve(gang)

    def _fail(self, gang: Gang, kind: FailureKind) -> None:
        """What a slot does with a job that has failed."""
        job = self._take_down(gang)
        self._keep(gang, job)
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
            self._wait(gang, wait_s, lambda: self._is_up(gang))
        else:
            self._put_back(replace(job, needs_fresh_gang=fresh, not_before=self.timeline.now + wait_s))

    def _keep(self, gang: Gang, job: Job[int]) -> None:
        """Of what was done, as far as the last checkpoint."""
        ended = self.timeline.worked if gang.ended_work is None else gang.ended_work
        done_s, every = (ended - gang.began_work) / gang.pace, self.scenario.checkpoint_s
        kept = math.floor(done_s / every) * every if every else 0.0
        self.tally.wasted_s += done_s - kept
        self._left[job.index] -= kept

    def _put_back(self, job: Job[int]) -> None:
        self.backlog.put_back(job)
        self.timeline.after(max(0.0, job.not_before - self.timeline.now), self._wake)

    def _wake(self) -> None:
        if self._idle:
            self._serve(self._idle.pop())

    # Losses

    def _plan_loss(self, node: int) -> None:
        if self.scenario.loss_hours is not None:
            seconds = self._losses.expovariate(1 / (self.scenario.loss_hours * HOUR_S))
            self.timeline.after(seconds, lambda: self._lose_node(node))

    def _lose_node(self, node: int) -> None:
        scenario = self.scenario
        loss = Strike(
            at_s=self.timeline.now, what="node", node=node, notice_s=scenario.notice_s, away_s=scenario.repair_s
        )
        self._strike(loss)
        self.timeline.after(scenario.repair_s, lambda: self._plan_loss(node))

    def _strike(self, strike: Strike) -> None:
        there = [gang for gang in self._gangs if strike.node in gang.nodes]
        if strike.what == "driver":
            self._restart(strike.away_s)
            return
        if strike.what == "node":
            self.tally.node_losses += 1
            self.places.lose(strike.node)
            self.timeline.after(strike.away_s, lambda: self._repair(strike.node))
        for gang in there if strike.what == "node" else there[:1]:
            self._hit(gang, strike)

    def _hit(self, gang: Gang, strike: Strike) -> None:
        """Nothing more comes of it, though nobody knows yet; if it was hit before, the earlier notice counts."""
        at_start_s = strike.notice_at_start_s
        notice_s = strike.notice_s if gang.is_ready or at_start_s is None else at_start_s
        if gang.ended_work is not None and gang.next and gang.next.due <= self.timeline.now + notice_s:
            return
        self._halt(gang)
        self._rest(gang)
        self._wait(gang, notice_s, lambda: self._notice(gang))

    def _rest(self, gang: Gang) -> None:
        """It takes nothing from the queue."""
        if gang in self._idle:
            self._idle.remove(gang)

    def _notice(self, gang: Gang) -> None:
        if gang.job:
            self._fail(gang, FailureKind.INFRASTRUCTURE)
        else:
            self._lose(gang)

    def _repair(self, node: int) -> None:
        self.places.mend(node)
        self._let_wait_no_longer()

    def _restart(self, away_s: float) -> None:
        """Another driver finds what is finished, and knows nothing of failures."""
        self._waiting.clear()
        for gang in self._gangs:
            self._halt(gang)
            self._rest(gang)
            if gang.job:
                job = self._take_down(gang)
                self._keep(gang, job)
                self._put_back(replace(job, failures=(), needs_fresh_gang=False))
            self._release(gang)
            self.places.give_back(gang.nodes)
            gang.nodes, gang.is_ready, gang.starts = (), False, 0
            self._wait(gang, away_s, lambda gang=gang: self._start(gang))
