"""Gangs that lose their place: none takes work along, one stays to wait, and others come back with the nodes."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group, remove_placement_group

from cluster.backlog import Backlog
from cluster.batch import Event, run_batch
from cluster.failure import Budgets
from cluster.fleet import Fleet
from cluster.gangs import OwnGangs
from cluster.heartbeat import LEADER
from cluster.job import Job
from cluster.nodes import NodeWatch
from cluster.remote import RemoteWorker
from cluster.runtime import ray_runtime
from cluster.slot import Slot
from cluster.waiting import Pace
from tests.cluster.toy import SINGLE, ToyWorkload

pytestmark = pytest.mark.timeout(400)
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """Two nodes of one CPU each, and a head without."""
    head = {**NODE, "num_cpus": 0, "include_dashboard": False, "dashboard_port": 0}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(2):
            cluster.add_node(**NODE)
        cluster.wait_for_nodes()
        with ray_runtime(cluster.address):
            yield cluster
    finally:
        cluster.shutdown()


@pytest.fixture
def one_cpu() -> Iterator[None]:
    with ray_runtime(num_cpus=1):
        yield


class Crowded:
    """A cluster with no place for another gang, where others do the work (the protocol `ClusterView`)."""

    def unusable(self) -> set[str]:
        return set()

    def suspect(self, node_id: str) -> None:
        pass

    def pace(self) -> Pace:
        return LEADER

    def why_waiting(self) -> str:
        return "others are using it"

    def make_room(self) -> None:
        pass

    def may_leave(self, slot: int) -> bool:
        return True

    def others_run(self, slot: int) -> bool:
        return True


@pytest.mark.slow
def test_a_slot_that_leaves_puts_the_job_in_its_hand_back(cluster: Cluster, tmp_path: Path):
    """It wants a fresh gang for the job, but by then somebody else has the place."""
    backlog = Backlog([Job(index=0, item={"value": 1, "first": "fail"})])
    events: list[Event] = []
    taken: list[Any] = []

    def take_the_place(event: Event) -> None:
        events.append(event)
        if [each.kind for each in events].count("gang_starting") == 2 and not taken:
            taken.append(placement_group([{"CPU": 1}] * 2))
            ray.get(taken[0].ready(), timeout=30)

    budgets = Budgets(item_failures=3)
    slot = Slot(
        index=0, gangs=OwnGangs(SINGLE, ToyWorkload(tmp_path), RemoteWorker), backlog=backlog, cluster=Crowded(),
        budgets=budgets, on_event=take_the_place, stop=threading.Event(), start_timeout_s=60,
    )  # fmt: skip
    slot.serve()
    assert [event.kind for event in events][-2:] == ["gang_waiting", "gang_closed"]
    assert not backlog.is_running_out and not slot.has_given_up
    time.sleep(budgets.wait_s(2))
    job = backlog.take()
    assert job is not None and job.attempts == 3  # two that failed, and this one
    remove_placement_group(taken[0])


def test_of_slots_that_would_all_leave_one_stays(one_cpu: None, tmp_path: Path):
    """No node can hold a gang any more, and all slots ask in step."""
    watch, too_big = NodeWatch(45), replace(SINGLE, num_cpus_per_rank=2)
    fleet = Fleet(
        spec=too_big, gangs=None, workload=ToyWorkload(tmp_path), backlog=Backlog([]), budgets=Budgets(),
        on_event=lambda event: None, watch=watch,
    )  # fmt: skip
    slots = [Slot.__new__(Slot) for _ in range(8)]
    for index, slot in enumerate(slots):
        slot.index = index
    ended, asking, left = threading.Event(), threading.Barrier(len(slots)), []
    fleet._threads = {slot: threading.Thread(target=ended.wait) for slot in slots}

    def ask(slot: Slot) -> None:
        asking.wait()
        left.append(fleet.may_leave(slot.index))

    askers = [threading.Thread(target=ask, args=[slot]) for slot in slots]
    for thread in [*fleet._threads.values(), *askers]:
        thread.start()
    for asker in askers:
        asker.join()
    ended.set()
    watch.end()
    assert sorted(left) == [False] + [True] * 7


@pytest.mark.slow
def test_gangs_that_lost_their_nodes_at_once_come_back_one_by_one_with_new_ones(cluster: Cluster, tmp_path: Path):
    events: list[Event] = []
    items = [{"value": 1, "first": "linger"} for _ in range(40)]

    def num(kind: str) -> int:
        return [event.kind for event in events].count(kind)

    def tick() -> None:
        if num("gang_ready") == 2 and len(cluster.worker_nodes) == 2:
            for node in list(cluster.worker_nodes):
                cluster.remove_node(node, allow_graceful=False)
        elif (
            len(cluster.worker_nodes) < 2 and num("gang_closed") and num("gang_ready") == 2 + len(cluster.worker_nodes)
        ):
            cluster.add_node(**NODE)

    outcomes = run_batch(
        spec=SINGLE, gangs=None, workload=ToyWorkload(tmp_path), items=items, on_event=events.append, on_tick=tick
    )
    assert all(outcome.failure is None for outcome in outcomes)
    assert num("gang_ready") == 4
