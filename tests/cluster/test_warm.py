"""Gangs that outlive their batch, on a real local Ray: taken, shared, and gone when nobody renews their lease."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from ray.util.placement_group import placement_group_table

from cluster.batch import Event, KeepWarm
from cluster.claim import Claim
from cluster.events import GangEvent
from cluster.failure import Budgets, FailureKind
from cluster.keepers import keepers, look_at
from cluster.placement import GangSpec
from cluster.pool import open_pool
from cluster.remote import RemoteWorker
from jobs.measure.idle import Alone
from tests.cluster.toy import PAIR, SINGLE, Errand, ToyWorkload, eventually, kinds, pids_of

pytestmark = pytest.mark.timeout(300)
KEEP = KeepWarm(key="toy", lease_s=2, claim_s=5)
DRIVER = Path(__file__).parent / "warm_driver.py"


@pytest.fixture(autouse=True)
def no_keeper_is_left(nothing_is_left: None) -> Iterator[None]:
    """After each test, once all leases have ended."""
    yield
    assert eventually(lambda: not keepers())


def run(folder: Path, items: list[dict], keep: KeepWarm | None = KEEP, spec: GangSpec = SINGLE, **options: Any):
    """A batch in a folder of its own, on ranks that join no process group: its outcomes and events."""
    folder.mkdir(exist_ok=True)
    events: list[Event] = []
    asked: dict[str, Any] = {"start_worker": Alone, "on_event": events.append, **options}
    with open_pool(spec=spec, gangs=1, workload=ToyWorkload(folder, Errand), keep=keep, **asked) as pool:
        return pool.run(items, is_last=True), events


def was_warm(events: list[Event]) -> list[bool]:
    """Of each gang that was ready, whether another batch had started it."""
    return [event.was_warm for event in events if isinstance(event, GangEvent) and event.kind == "gang_ready"]


def test_the_next_batch_takes_the_gang_that_is_there_and_loads_nothing(tmp_path: Path):
    """Both ranks serve it with what it asks for: its workload is another."""
    first, events = run(tmp_path / "first", [{"value": 1}, {"value": 10}], spec=PAIR)
    second, later = run(tmp_path / "second", [{"value": 100}], spec=PAIR)
    assert [outcome.result["total"] for outcome in (*first, *second)] == [1, 10, 100]
    assert (was_warm(events), was_warm(later)) == ([False], [True])
    assert len(pids_of(tmp_path / "first")) == 2 and not pids_of(tmp_path / "second")
    assert first[0].result["folder"] != second[0].result["folder"]


@pytest.mark.slow
def test_a_batch_that_keeps_nothing_takes_none_and_one_that_loads_something_else_neither(tmp_path: Path):
    run(tmp_path / "first", [{"value": 1}])
    _, cold = run(tmp_path / "cold", [{"value": 1}], keep=None)
    _, other = run(tmp_path / "other", [{"value": 1}], keep=replace(KEEP, key="another"))
    assert was_warm(cold) == was_warm(other) == [False]
    assert len(pids_of(tmp_path)) == 3


@pytest.mark.slow
def test_of_two_that_want_an_idle_gang_alone_one_gets_it(tmp_path: Path):
    run(tmp_path / "first", [{"value": 1}])
    [keeper] = keepers("toy")
    claims = [Claim(keeper, KEEP, batch) for batch in ("a", "b")]
    asked = [claim.keeper.take(claim.batch, 2.0, True) for claim in claims]
    assert [roster is None for roster in ray.get(asked)].count(True) == 1
    assert look_at([keeper])[keeper].num_batches == 1


def test_a_gang_is_shared_where_there_is_no_place_for_another_and_runs_one_item_at_a_time(tmp_path: Path):
    """Each item is run with the folder of its own batch, whoever was served in between."""
    outcomes: dict[str, list] = {}
    spec = replace(SINGLE, num_cpus_per_rank=2)

    def work(name: str) -> None:
        outcomes[name], _ = run(tmp_path / name, [{"value": value, "first": "linger"} for value in range(3)], spec=spec)

    threads = [threading.Thread(target=work, args=[name]) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pids_of(tmp_path)) == 1
    for name, ended in outcomes.items():
        assert [outcome.result["total"] for outcome in ended] == [0, 1, 2]
        assert {outcome.result["folder"] for outcome in ended} == {str(tmp_path / name)}
    spans = sorted(outcome.result["span"] for ended in outcomes.values() for outcome in ended)
    assert all(end <= begin for (_, end), (begin, _) in pairwise(spans))


@pytest.mark.slow
def test_a_gang_that_an_item_has_broken_is_not_kept(tmp_path: Path):
    items = [{"value": 1, "first": "die_once"}]
    [outcome], events = run(tmp_path / "first", items, budgets=Budgets(backoff_s=0.01))
    assert outcome.result["total"] == 1 and outcome.attempts == 2
    assert kinds(events).count("gang_lost") == 1 and len(keepers("toy")) == 1


@pytest.mark.slow
def test_the_last_try_of_an_item_is_on_a_gang_that_has_run_nothing(tmp_path: Path):
    run(tmp_path / "first", [{"value": 1}])
    [outcome], events = run(tmp_path / "second", [{"value": 1, "first": "fail"}], budgets=Budgets(backoff_s=0.01))
    assert outcome.failure is FailureKind.ITEM
    assert was_warm(events) == [True, False]


@pytest.mark.slow
def test_an_interrupt_ends_the_gang_that_runs_something(tmp_path: Path):
    def interrupt(event: Event) -> None:
        if event.kind == "item_started":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(
            tmp_path / "first",
            [{"value": 1, "first": "hang_once"}],
            keep=replace(KEEP, lease_s=600),
            on_event=interrupt,
        )
    assert eventually(lambda: not keepers())


@pytest.mark.slow
def test_idle_gangs_make_room_for_a_batch_that_finds_no_place(tmp_path: Path):
    spec = replace(SINGLE, num_cpus_per_rank=2)
    run(tmp_path / "first", [{"value": 1}], keep=replace(KEEP, lease_s=600), spec=spec)
    [outcome], _ = run(tmp_path / "cold", [{"value": 1}], keep=None, spec=spec)
    assert outcome.result["total"] == 1 and not keepers()


@pytest.mark.slow
def test_a_silent_batch_loses_its_turn_once_the_ranks_are_free(tmp_path: Path):
    """Its driver does not say any more that it is there; what it had begun runs to its end."""
    run(tmp_path / "first", [{"value": 1}], keep=replace(KEEP, lease_s=20))
    [keeper] = keepers("toy")
    gone, next_one = Claim(keeper, replace(KEEP, lease_s=20), "gone"), Claim(keeper, KEEP, "next")
    stop = threading.Event()
    roster = gone.take(alone=True)
    assert roster is not None and gone.turn(stop)
    worker = roster.workers[0]
    ray.get(worker.take_up("gone", ToyWorkload(tmp_path)))
    running = worker.run({"value": 1, "first": "linger_long"}, 1)
    asked = time.monotonic()
    assert next_one.take(alone=False)
    assert eventually(lambda: next_one.turn(stop), patience_s=30)
    assert time.monotonic() - asked > KEEP.claim_s / 2 and ray.wait([running], timeout=0)[0]
    next_one.leave()
    keeper.kill()


@pytest.mark.slow
def test_a_rank_refuses_what_comes_from_a_batch_whose_turn_is_over(tmp_path: Path):
    run(tmp_path / "first", [{"value": 1}], keep=replace(KEEP, lease_s=20))
    [keeper] = keepers("toy")
    roster = Claim(keeper, KEEP, "late").take(alone=True)
    assert roster is not None
    worker = roster.workers[0]
    ray.get(worker.take_up("late", ToyWorkload(tmp_path)))
    other = RemoteWorker.__new__(RemoteWorker)
    other._actor = worker._actor
    ray.get(other.take_up("next", ToyWorkload(tmp_path)))
    report = ray.get(worker.run({"value": 1}, 1))
    assert report.kind is FailureKind.INFRASTRUCTURE and report.summary == "The gang has been given to another batch."
    keeper.kill()


def processes(name: str) -> list[psutil.Process]:
    """Of this Ray's actors, those of a class, as Ray calls their processes."""
    found = []
    for process in psutil.process_iter(["cmdline", "username"]):
        command = process.info["cmdline"] or [""]  # pyright: ignore[reportAttributeAccessIssue]
        if command[0].startswith(f"ray::{name}") and psutil.Process().pid in {each.pid for each in process.parents()}:
            found.append(process)
    return found


@pytest.fixture
def drive(tmp_path: Path) -> Iterator[Any]:
    """Starts a driver in a process of its own, which keeps two ranks warm; its second item begins as it is asked to."""
    drivers: list[subprocess.Popen] = []

    def start(lease_s: float, first: str) -> subprocess.Popen:
        address = ray.get_runtime_context().gcs_address
        command = [sys.executable, str(DRIVER), address, str(tmp_path), str(lease_s), first]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        drivers.append(subprocess.Popen(command, env=environment))
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.kill()
        driver.wait()


@pytest.mark.slow
@pytest.mark.parametrize("killed", [[], ["Keeper"], ["IdleWorker"], ["Keeper", "IdleWorker"]])
def test_whatever_is_killed_with_the_driver_the_gang_is_gone_when_its_lease_ends(killed, drive: Any, tmp_path: Path):
    driver = drive(3, "hang_once")
    assert eventually(lambda: (tmp_path / "misbehaved").exists(), patience_s=170)
    assert len(processes("Keeper")) == 1 and len(processes("IdleWorker")) == len(pids_of(tmp_path)) == 2
    began_s = time.monotonic()
    driver.send_signal(signal.SIGKILL)
    for name in killed:
        for process in processes(name):
            process.kill()
    assert eventually(lambda: not (keepers() or processes("Keeper") or processes("IdleWorker")), patience_s=30)
    assert eventually(lambda: {group["state"] for group in placement_group_table().values()} <= {"REMOVED"})
    print(f"killed with the driver: {killed or 'nothing'}; gone after {time.monotonic() - began_s:.1f} s")


@pytest.mark.slow
def test_one_rank_that_is_killed_takes_an_idle_gang_with_it(drive: Any, tmp_path: Path):
    assert drive(600, "nothing").wait(60) == 0
    processes("IdleWorker")[0].kill()
    assert eventually(lambda: not (keepers() or processes("IdleWorker")), patience_s=30)


@pytest.mark.slow
def test_a_driver_that_is_killed_while_its_gang_waits_for_a_place_leaves_nothing(drive: Any, tmp_path: Path):
    spec = GangSpec(world_size=1, num_cpus_per_rank=2)
    with open_pool(spec=spec, gangs=1, workload=ToyWorkload(tmp_path)) as pool:
        pool.run([{"value": 1}])
        driver = drive(600, "nothing")
        assert eventually(lambda: len(keepers("toy")) == 1, patience_s=170)
        driver.kill()
        assert eventually(lambda: not keepers(), patience_s=30)


@pytest.mark.slow
def test_a_driver_that_is_run_again_after_it_was_killed_takes_the_gang_that_is_there(drive: Any, tmp_path: Path):
    driver = drive(60, "linger_long")
    assert eventually(lambda: len(pids_of(tmp_path)) == 2, patience_s=170)
    time.sleep(1)
    driver.kill()
    before = pids_of(tmp_path)
    _, events = run(tmp_path / "again", [{"value": 1}], spec=PAIR)
    assert was_warm(events) == [True] and pids_of(tmp_path) == before
    for keeper in keepers():
        keeper.kill()
