"""Batches whose gangs outlive them: what a second one finds, and what is left when everything but Ray is killed."""

import signal
import time

import pytest

from tests.jobs.survival.conftest import check_nothing_is_held
from tests.jobs.survival.harness import ledger, ranks, send, told, until
from tests.jobs.survival.test_ranks_and_nodes import raylets, rendering_ranks

pytestmark = pytest.mark.timeout(600)
LEASE_S = 60.0  # longer than any lease or claim here


def until_first_start_s(out) -> float:
    """From the driver's first word to its first video."""
    return told(out, "start")[0]["t"] - ledger(out)[0]["t"]


@pytest.mark.slow
def test_a_second_batch_starts_on_the_ranks_of_the_first_with_a_method_of_its_own(cluster, start, tmp_path):
    first, second, address = tmp_path / "first", tmp_path / "second", cluster.address
    driver = start("--address", address, "--keep-warm", 0.2, out=first)
    assert driver.wait() == 0, driver.told
    before = [rank.pid for pid in raylets(cluster) for rank in ranks(pid)]
    driver = start("--address", address, "--keep-warm", 0.05, "--method", "clusca", "--fps", 4, out=second)
    assert driver.wait() == 0, driver.told
    assert "gang 0: taken warm, 1 rank" in driver.told
    assert [rank.pid for pid in raylets(cluster) for rank in ranks(pid)] == before
    assert len(told(second, "done")) == 4
    check_nothing_is_held(cluster.address, LEASE_S)
    assert not [rank for pid in raylets(cluster) for rank in ranks(pid)]
    print(f"until the first video: {until_first_start_s(first):.1f} s, then {until_first_start_s(second):.2f} s")


@pytest.mark.slow
def test_when_driver_ranks_and_keepers_are_killed_nothing_is_left(cluster, start, tmp_path):
    driver = start("--address", cluster.address, "--keep-warm", 0.05, "--ring", 2)
    for rank in rendering_ranks(cluster, tmp_path / "out", 2):
        send(rank, signal.SIGKILL)
    driver.kill()
    until(lambda: not [rank for pid in raylets(cluster) for rank in ranks(pid)], "the ranks to go")
    check_nothing_is_held(cluster.address, LEASE_S)


@pytest.mark.slow
def test_the_gangs_of_a_driver_that_is_killed_are_gone_when_their_lease_ends(cluster, start, tmp_path):
    driver = start("--address", cluster.address, "--keep-warm", 0.05, "--ring", 2)
    rendering_ranks(cluster, tmp_path / "out", 2)
    driver.kill()
    began_s = time.monotonic()
    until(lambda: not [rank for pid in raylets(cluster) for rank in ranks(pid)], "the ranks to go", patience_s=90)
    print(f"gone {time.monotonic() - began_s:.0f} s after the driver")
