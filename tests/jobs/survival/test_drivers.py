"""Drivers that are killed, stopped, cancelled or doubled, heads that die, and Ray jobs that are stopped."""

import json
import os
import signal
from pathlib import Path

import pytest
from ray.cluster_utils import Cluster

from jobs.store.partial import partial_of
from tests.jobs.survival.conftest import NODE
from tests.jobs.survival.harness import (
    Driver,
    check_no_debris,
    check_no_rank_lives,
    check_nothing_is_lost,
    checksums,
    is_rendering,
    ranks,
    told,
    until,
)

pytestmark = pytest.mark.timeout(600)


def test_after_a_driver_only_the_rest_is_rendered_and_behind_the_last_video_nothing(start, reference, tmp_path):
    """The first is stopped: `ray job stop` and Slurm send SIGTERM, and Ray sends SIGKILL 3 s later. Two are killed."""
    out, notice = tmp_path / "out", tmp_path / "end.json"
    first = start("--on-end", f"sh -c 'cat > {notice}'", "--price", 2)
    until(lambda: told(out, "done") and is_rendering(out), "the second video")
    finished = {line["id"] for line in told(out, "done")}
    first.process.send_signal(signal.SIGTERM)
    until(lambda: told(out, "end"), "the last words", patience_s=3)
    assert first.wait() == 143
    assert told(out, "end")[0]["how"] == "stopped" and finished <= {line["id"] for line in told(out, "done")}
    end = json.loads(notice.read_text())
    assert (end["how"], end["exit_code"], end["total"]) == ("stopped", 143, len(reference))
    assert len(finished) <= end["done"] < len(reference) and end["cost"] > 0
    check_no_rank_lives(first)
    check_no_debris(out)
    before = {path: path.stat().st_mtime_ns for path in (out / "videos").glob("*.mp4")}
    second = start()
    until(lambda: len(list((out / "videos").glob("*.json"))) == len(reference), "the last video")
    pids = [rank.pid for rank in ranks(second.process.pid)]
    second.kill()
    until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), "its ranks to go")
    assert f"{len(before)} finished before" in second.told
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (out / "driver.lock").exists()
    leave_half_a_lock(out, second.process.pid)
    third = start()  # which has only to tidy up
    assert third.wait() == 0, third.told
    assert f"{len(reference)} finished before" in third.told
    check_nothing_is_lost(out, reference)
    assert told(out, "end")[-1]["how"] == "done"


def leave_half_a_lock(out: Path, pid: int) -> None:
    """What a driver leaves that is killed while it writes that it lives."""
    half = partial_of(out / "driver.lock")
    half.with_name(half.name.replace(f"-{os.getpid()}-", f"-{pid}-")).write_bytes(b"{")


@pytest.mark.slow
def test_after_a_driver_that_was_killed_in_a_video_only_the_rest_is_rendered(start, reference, tmp_path):
    out = tmp_path / "out"
    first = start()
    until(lambda: told(out, "done") and is_rendering(out), "the second video")
    first.kill()
    second = start()
    assert second.wait() == 0, second.told
    assert "finished before" in second.told
    check_nothing_is_lost(out, reference)


@pytest.mark.slow
def test_a_batch_is_cancelled_by_its_directory_and_taken_up_by_retry(start, reference, tmp_path):
    out = tmp_path / "out"
    driver = start()
    until(lambda: is_rendering(out), "the first video")
    asked = Driver("cancel", out, log=tmp_path / "cancel.log")
    assert asked.wait() == 0, asked.told
    assert driver.wait() == 143, driver.told
    assert "was cancelled" in driver.told
    status = Driver("status", out, log=tmp_path / "status.log")
    assert status.wait() == 0 and "the last one ended: stopped" in status.told, status.told
    again = Driver("retry", out, log=tmp_path / "retry.log")
    assert again.wait() == 0, again.told
    check_nothing_is_lost(out, reference)


@pytest.mark.slow
def test_of_two_drivers_that_race_one_is_refused(start, reference, tmp_path):
    first, second = start(), start()
    codes = sorted([first.wait(), second.wait()])
    assert codes == [0, 2], first.told + second.told
    refused = first if first.process.returncode else second
    assert "another driver works on" in refused.told
    check_nothing_is_lost(tmp_path / "out", reference)


@pytest.mark.slow
def test_a_killed_video_goes_on_from_its_checkpoint_to_the_same_bytes(start, reference, tmp_path):
    out = tmp_path / "out"
    first = start("--checkpoint-every", 50)
    until(lambda: list((out / "checkpoints").glob("*/step-*.json")), "a checkpoint")
    first.kill()
    second = start("--checkpoint-every", 50)
    assert second.wait() == 0, second.told
    assert '"resumed"' in "".join(path.read_text() for path in (out / "logs").glob("0*.jsonl"))
    assert checksums(out) == reference
    assert not list((out / "checkpoints").rglob("*.safetensors"))


@pytest.mark.slow
def test_after_a_dead_head_a_new_cluster_goes_on(start, reference_of_single_cores, tmp_path):
    out = tmp_path / "out"
    options = {"initialize_head": True, "head_node_args": {**NODE, "include_dashboard": False, "dashboard_port": 0}}
    first = Cluster(**options)
    try:
        notice = tmp_path / "end.json"
        driver = start("--address", first.address, "--on-end", f"sh -c 'cat > {notice}'")
        until(lambda: told(out, "done") and is_rendering(out), "the second video")
        published = checksums(out)
        gcs = first.head_node.all_processes["gcs_server"][0].process
        gcs.kill()
        assert driver.wait(120) == 33, driver.told
        assert "The head of the Ray cluster has not answered" in driver.told
        assert json.loads(notice.read_text())["how"] == "infrastructure"
        assert "has not answered" in (out / "logs" / "driver.jsonl").read_text()
        assert published.items() <= checksums(out).items()
    finally:
        first.shutdown()
    second = Cluster(**options)
    try:
        again = start("--address", second.address)
        assert again.wait() == 0, again.told
        check_nothing_is_lost(out, reference_of_single_cores)
    finally:
        second.shutdown()
