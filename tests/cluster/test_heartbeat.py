"""How often ranks are asked for their heartbeats, on a clock that is moved by hand; the answers come through Ray."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import ray
from ray import ObjectRef

from cluster.heartbeat import GANGS, LEADER, Heartbeat, HeartbeatMonitor, pace_of
from cluster.runtime import ray_runtime
from cluster.waiting import Pace


@pytest.fixture(scope="module", autouse=True)
def local_ray() -> Iterator[None]:
    with ray_runtime(num_cpus=1):
        yield


@dataclass
class Rank:
    """Answers at once."""

    beats: int = 0
    num_polls: int = 0

    def poll(self) -> ObjectRef[Heartbeat]:
        self.num_polls += 1
        return ray.put(Heartbeat(progress=0.5, beats=self.beats))


class Gang:
    """Ranks whose heartbeats are looked at every second of a virtual clock; a silence is a minute."""

    def __init__(self, num_ranks: int, pace: Pace = LEADER):
        self.now_s, self.ranks = 100.0, [Rank() for _ in range(num_ranks)]
        self.monitor = HeartbeatMonitor(self.ranks, silence_s=60, standstill_s=600, pace=pace, clock=lambda: self.now_s)

    def polls_in(self, seconds: int, *, gets_on: bool) -> list[int]:
        """How often each rank is asked meanwhile."""
        before = [rank.num_polls for rank in self.ranks]
        for _ in range(seconds):
            self.now_s += 1
            self.ranks[0].beats += gets_on
            self.monitor.poll()
        return [rank.num_polls - number for rank, number in zip(self.ranks, before, strict=True)]


def test_the_longer_a_run_the_more_seldom_its_leader_is_asked():
    gang = Gang(1)
    assert gang.polls_in(3, gets_on=True) == [1]
    assert gang.polls_in(300, gets_on=True)[0] == pytest.approx(300 / 10, abs=8)
    assert gang.monitor.progress == 0.5


def test_the_other_ranks_are_asked_only_while_the_leader_does_not_get_on():
    gang = Gang(3)
    assert gang.polls_in(60, gets_on=True)[1:] == [0, 0]
    assert gang.polls_in(60, gets_on=False)[1:] == [pytest.approx(60 / 15, abs=1)] * 2
    assert max(gang.polls_in(60, gets_on=True)[1:]) <= 1


def test_a_rank_that_does_not_answer_is_found_while_the_leader_waits_for_it():
    gang = Gang(2)
    gang.ranks[1].poll = lambda: never()
    gang.polls_in(60, gets_on=True)
    assert gang.monitor.silent() == []
    gang.polls_in(90, gets_on=False)
    assert gang.monitor.silent() == [1] and not gang.monitor.stands_still()


def test_it_says_until_when_there_is_nothing_to_do():
    """The leader is asked after 2 s and after 4, the other one 15 s after the leader has moved for the last time."""
    gang = Gang(2)
    assert (gang.monitor.wait_s, gang.monitor.pending) == (2, [])
    gang.ranks[1].poll = lambda: never()
    assert gang.polls_in(2, gets_on=True)[0] == 1
    assert gang.monitor.wait_s == 13 and len(gang.monitor.pending) == 1
    gang.polls_in(1, gets_on=True)
    assert gang.monitor.wait_s == 1 and not gang.monitor.pending
    gang.polls_in(57, gets_on=False)
    assert gang.monitor.silent() == []
    gang.polls_in(30, gets_on=False)
    assert gang.monitor.silent() == [1]


def never() -> ObjectRef[Heartbeat]:
    """What no node has the resource for."""
    return ray.remote(lambda: Heartbeat()).options(num_cpus=99).remote()


def test_of_many_gangs_each_is_asked_the_more_seldom_but_before_it_counts_as_silent():
    assert pace_of(1) == pace_of(GANGS) == LEADER
    gangs = [Gang(1, pace_of(num_gangs)) for num_gangs in (1, 64, 128, 4096)]
    asked = [gang.polls_in(600, gets_on=True)[0] for gang in gangs]
    assert asked[0] > asked[1] >= asked[2] >= asked[3] >= 600 / 15 - 4


def test_a_pace_keeps_its_bounds():
    pace = Pace(least_s=1.0, most_s=5.0)
    assert [pace.period_s(elapsed_s) for elapsed_s in (0, 1, 4, 100)] == [1.0, 1.0, 4.0, 5.0]
