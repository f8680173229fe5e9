"""Ranks and nodes that die, hang, leave or come, under a driver on a cluster of several nodes."""

import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from tests.jobs.survival.conftest import NODE
from tests.jobs.survival.harness import (
    check_no_rank_lives,
    check_nothing_is_lost,
    is_rendering,
    ranks,
    send,
    told,
    until,
)

pytestmark = pytest.mark.timeout(600)


def raylets(cluster: Cluster) -> list[int]:
    nodes = [cluster.head_node, *cluster.worker_nodes]
    return [node.all_processes["raylet"][0].process.pid for node in nodes]


def rendering_ranks(cluster: Cluster, out: Path, count: int = 1) -> list:
    until(lambda: is_rendering(out), "a video to be under way")
    return until(lambda: (found := [r for pid in raylets(cluster) for r in ranks(pid)])[count - 1 :] and found, "ranks")


@pytest.mark.slow
def test_a_killed_rank_costs_its_gang_and_the_video_is_rendered_again(cluster, start, reference_of_pairs, tmp_path):
    out = tmp_path / "out"
    driver = start("--address", cluster.address, "--ring", 2)
    send(rendering_ranks(cluster, out, 2)[1], signal.SIGKILL)
    assert driver.wait() == 0, driver.told
    assert sorted(Counter(line["id"] for line in told(out, "start")).values()) == [1, 1, 1, 2]
    assert len(told(out, "gang_lost")) == 1
    check_nothing_is_lost(out, reference_of_pairs)
    check_no_rank_lives(driver, *raylets(cluster))


@pytest.mark.slow
def test_a_hung_rank_is_found_by_its_silence(cluster, start, reference_of_single_cores, tmp_path):
    out = tmp_path / "out"
    driver = start("--address", cluster.address, "--heartbeat", 4)
    send(rendering_ranks(cluster, out)[0], signal.SIGSTOP)
    assert driver.wait() == 0, driver.told
    [lost] = told(out, "gang_lost")
    assert lost["error"].startswith("No answer for 4 s from rank 0 on ")
    check_nothing_is_lost(out, reference_of_single_cores)
    check_no_rank_lives(driver, *raylets(cluster))


@pytest.mark.slow
def test_a_dead_node_is_left_and_the_rest_goes_on(cluster, start, reference_of_single_cores, tmp_path):
    out = tmp_path / "out"
    driver = start("--address", cluster.address, "--gangs", "auto", "--heartbeat", 8)
    until(lambda: len(list((out / "attempts").glob("*"))) == 2, "two videos at a time")  # the ledger comes later
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    assert driver.wait() == 0, driver.told
    assert len(told(out, "gang_lost")) >= 1
    check_nothing_is_lost(out, reference_of_single_cores)
    check_no_rank_lives(driver, *raylets(cluster))


@pytest.mark.slow
def test_a_batch_waits_for_a_node_and_says_so(cluster, start, reference_of_pairs, tmp_path):
    out = tmp_path / "out"
    driver = start("--address", cluster.address, "--ring", 2, "--heartbeat", 8)
    rendering_ranks(cluster, out, 2)
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    until(lambda: "waiting for a place: 1 gang of 2 ranks asked for 2 CPUs" in driver.told, "it to say so")
    cluster.add_node(**NODE)
    assert driver.wait() == 0, driver.told
    check_nothing_is_lost(out, reference_of_pairs)


@pytest.mark.slow
def test_a_node_that_is_drained_finishes_its_video_and_gets_no_other(
    cluster, start, reference_of_single_cores, tmp_path
):
    out = tmp_path / "out"
    driver = start("--address", cluster.address, "--gangs", "auto")
    until(lambda: len(told(out, "start")) >= 2 and is_rendering(out), "both gangs")
    drained = next(iter(cluster.worker_nodes))
    drain = [sys.executable, "-m", "ray.scripts.scripts", "drain-node", "--node-id", drained.node_id]
    drain += ["--address", cluster.address, "--deadline-remaining-seconds", "600"]
    drain += ["--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "spot"]
    subprocess.run(drain, check=True, timeout=60, capture_output=True)
    assert driver.wait() == 0, driver.told
    [closed] = told(out, "gang_closed")[:1]
    assert "drained" in closed["error"] and not told(out, "gang_lost")
    after = [line for line in told(out, "start") if line["t"] > closed["t"] and line["g"] == closed["g"]]
    assert not after
    check_nothing_is_lost(out, reference_of_single_cores)
    check_no_rank_lives(driver, *raylets(cluster))


@pytest.mark.slow
def test_gangs_come_with_nodes(start, reference_of_single_cores, tmp_path):
    out = tmp_path / "out"
    small = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False, "dashboard_port": 0})
    try:
        driver = start("--address", small.address, "--gangs", "auto")
        until(lambda: told(out, "start"), "the first video")
        small.add_node(**NODE)
        assert driver.wait() == 0, driver.told
        assert {line["g"] for line in told(out, "gang_ready")} == {0, 1}
        check_nothing_is_lost(out, reference_of_single_cores)
    finally:
        small.shutdown()
