"""Batches on a real local Ray, with toy sessions."""

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cluster.batch import Event, InfeasibleGang, run_batch
from cluster.failure import FailureKind
from cluster.gang import Gang, _await_placement
from cluster.intake import Intake
from cluster.placement import GangSpec, release, reserve
from cluster.pool import open_pool
from cluster.ranks import RankContext
from cluster.slot import NoPlace
from tests.cluster.toy import PAIR, SINGLE, BrokenWorkload, Fetching, ToyWorkload, gangs_that_ran, kinds, run

pytestmark = [pytest.mark.timeout(400), pytest.mark.usefixtures("nothing_is_left")]


def test_two_ranks_work_on_each_item_together(tmp_path: Path):
    outcomes, events = run(tmp_path, [{"value": 1}, {"value": 10}])
    assert [outcome.result["total"] for outcome in outcomes] == [3, 30]
    assert [outcome.item["value"] for outcome in outcomes] == [1, 10]
    assert all(outcome.failure is None and outcome.attempts == 1 for outcome in outcomes)
    assert gangs_that_ran(events) == [0, 0]
    assert outcomes[0].result["threads"] == "1"
    assert kinds(events) == ["gang_starting", "gang_ready"] + ["item_started", "item_done"] * 2
    assert len(list(tmp_path.glob("pid-*"))) == len(list(tmp_path.glob("closed-*"))) == 2
    assert [path.name for path in tmp_path.glob("prepared-*")] == ["prepared-0"]  # once on their node


def test_gangs_share_one_queue_and_one_gives_its_machines_back_while_others_run_the_last_items(tmp_path, monkeypatch):
    monkeypatch.setattr("cluster.slot.LONGEST_IDLE_S", 0.5)
    items = [{"value": 1, "first": "outlast"}, *({"value": value, "first": "linger"} for value in (2, 3, 4))]
    outcomes, events = run(tmp_path, items, spec=SINGLE, gangs=2)
    assert [outcome.result["total"] for outcome in outcomes] == [1, 2, 3, 4]
    # Its closing is what the first item has waited for.
    *of_the_other, of_the_one = gangs_that_ran(events)
    assert of_the_one not in of_the_other and len(set(of_the_other)) == 1
    assert of_the_other[0] in {event.gang for event in events if event.kind == "gang_closed"}
    assert kinds(events).count("gang_ready") == 2
    assert 0.5 in {event.fraction for event in events if event.kind == "item_progress"}


class Later:
    """A source of one item while the first runs, and of one more when nothing is left; it withdraws the second."""

    keeps_gangs = False

    def __init__(self) -> None:
        self.left = [[{"value": 4}], [{"value": 8}]]
        self.withdrawn: list[dict] = []

    def __call__(self, intake: Intake) -> bool:
        if len(self.left) == 2:
            self.withdrawn = intake.withdraw(lambda item: item["value"] == 2)
        if len(self.left) == 2 or (self.left and intake.is_idle):
            intake.add(self.left.pop(0))
        return bool(self.left) or not intake.is_idle


def test_what_a_source_gives_meanwhile_is_run_by_the_same_gang_and_what_it_withdraws_is_not(tmp_path: Path):
    events, source = [], Later()
    outcomes = run_batch(
        workload=ToyWorkload(tmp_path), items=[{"value": 1, "first": "linger"}, {"value": 2}], source=source,
        spec=SINGLE, gangs=1, on_event=events.append, cost_of=lambda item: 1 / item["value"],
    )  # fmt: skip
    assert [outcome.item["value"] for outcome in outcomes] == [1, 4, 8]
    assert source.withdrawn == [{"value": 2}] and kinds(events).count("gang_ready") == 1


def test_a_source_may_begin_with_nothing(tmp_path: Path):
    outcomes = run_batch(workload=ToyWorkload(tmp_path), items=[], source=Later(), spec=SINGLE, gangs=1)
    assert [outcome.item["value"] for outcome in outcomes] == [4, 8]


def test_gangs_of_a_pool_stay_between_one_run_and_the_next(tmp_path: Path):
    events: list[Event] = []
    with open_pool(spec=SINGLE, gangs=2, workload=ToyWorkload(tmp_path), on_event=events.append) as pool:
        first = pool.run([{"value": 1}, {"value": 2}, {"value": 3}])
        second = pool.run([{"value": 4}])
        assert not pool.run([])
    assert [outcome.result["total"] for outcome in (*first, *second)] == [1, 2, 3, 4]
    assert kinds(events).count("gang_ready") == len(list(tmp_path.glob("closed-*"))) <= 2
    assert "gang_lost" not in kinds(events)


def test_a_pool_whose_gangs_cannot_be_started_says_so_of_every_item():
    with open_pool(spec=SINGLE, gangs=1, workload=BrokenWorkload()) as pool:
        outcomes = [*pool.run([1, 2]), *pool.run([3])]
    assert [outcome.failure for outcome in outcomes] == [FailureKind.START] * 3


def test_costly_items_come_first_and_a_gang_stays_with_a_shape(tmp_path: Path):
    items = [{"value": value} for value in (1, 12, 2, 11, 13)]
    options: Any = {"cost_of": lambda item: item["value"], "shape_of": lambda item: item["value"] > 10}
    events: list[Event] = []
    workload = ToyWorkload(tmp_path)
    outcomes = run_batch(spec=SINGLE, gangs=1, workload=workload, items=items, on_event=events.append, **options)
    assert [event.item["value"] for event in events if event.kind == "item_started"] == [13, 12, 11, 2, 1]
    assert [outcome.item["value"] for outcome in outcomes] == [1, 12, 2, 11, 13]


@pytest.mark.slow
def test_without_a_number_there_are_as_many_gangs_as_the_cluster_holds(tmp_path: Path):
    items = [{"value": value, "first": "linger"} for value in range(6)]
    outcomes, events = run(tmp_path, items, spec=SINGLE, gangs=None)
    assert all(outcome.failure is None for outcome in outcomes)
    assert kinds(events).count("gang_starting") == 2


def test_what_a_node_fetches_is_not_on_the_clock_of_the_start():
    gang, workers = Gang.__new__(Gang), [Fetching(), Fetching(), Fetching()]
    gang._spec, gang._workers, gang.hosts = replace(SINGLE, start_timeout_s=0.01), workers, ["here"] * 3
    contexts = [RankContext(rank=rank, world_size=3, local_rank=rank % 2, device="cpu") for rank in range(3)]
    gang._prepare(contexts, BrokenWorkload(), threading.Event())
    assert [worker.fetched for worker in workers] == [True, False, True]


def test_waiting_for_a_place_looks_a_few_times_a_second():
    """Each look asks the cluster's head; Ray's own way of waiting took a third of a core for each gang that waited."""
    taken, wanted = reserve(PAIR), reserve(SINGLE)
    looked: list[float] = []

    def look(seconds: float) -> None:
        looked.append(seconds)
        if seconds > 1:
            raise NoPlace

    assert taken.wait(30)
    with pytest.raises(NoPlace):
        _await_placement(wanted, threading.Event(), look)
    assert len(looked) <= 6
    for group in (taken, wanted):
        release(group)


def test_an_impossible_gang_is_refused_before_anything_starts():
    events: list[Event] = []
    spec = GangSpec(world_size=3)
    with pytest.raises(InfeasibleGang, match=r"1 gang of 3 ranks asked for 3 CPUs .* the cluster has 2 CPUs"):
        run_batch(spec=spec, gangs=1, workload=BrokenWorkload(), items=[1], on_event=events.append)
    assert events == []


@pytest.mark.slow
def test_the_batch_does_not_wait_for_nodes_whose_gangs_nobody_needs_any_more(tmp_path: Path):
    events: list[Event] = []
    promised = [{"CPU": 2.0}, {"CPU": 2.0}]  # the second never comes
    outcomes = run_batch(
        spec=PAIR,
        gangs=2,
        workload=ToyWorkload(tmp_path),
        items=[{"value": 1.0}, {"value": 2.0}],
        on_event=events.append,
        may_grow_to=promised,
    )
    assert [outcome.error for outcome in outcomes] == [None, None]
    assert len({event.gang for event in events if event.kind == "gang_starting"}) == 2
    assert len({event.gang for event in events if event.kind == "gang_ready"}) == 1


def test_an_interrupt_tears_everything_down(tmp_path: Path):
    def interrupt(event: Event) -> None:
        if event.kind == "item_started":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_batch(spec=SINGLE, gangs=1, workload=ToyWorkload(tmp_path), items=[{"value": 1}] * 3, on_event=interrupt)
    assert len(list(tmp_path.glob("pid-*"))) == 1


def test_an_empty_batch_has_no_outcomes(tmp_path: Path):
    assert run(tmp_path, []) == ([], [])
