"""Batches whose output is a bucket: drivers that are killed, and a store that does not answer for a while."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.jobs.survival.harness import check_nothing_is_lost, told, until
from tests.jobs.survival.tunnel import Tunnel

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]


@pytest.fixture
def tunnel(bucket: str) -> Iterator[Tunnel]:
    """What lies between the drivers and the bucket's server."""
    with Tunnel(int(os.environ["AWS_ENDPOINT_URL"].rpartition(":")[2])) as tunnel:
        yield tunnel


@pytest.fixture
def fetch(bucket: str, tmp_path: Path) -> Callable[[], Path]:
    """Copies what lies in the bucket by now."""
    import s3fs

    def fetch() -> Path:
        s3fs.S3FileSystem.clear_instance_cache()
        store, copy = s3fs.S3FileSystem(), tmp_path / f"copy-{time.monotonic_ns()}"
        for name in store.find(f"{bucket}/{tmp_path.name}"):
            path = copy / name.partition(f"{tmp_path.name}/")[2]
            with suppress(FileNotFoundError):  # It is gone by now.
                content = store.cat_file(name)
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
        return copy

    return fetch


def test_a_batch_in_a_bucket_survives_its_driver(start, bucket, fetch, reference, tmp_path):
    options = {"out": f"{bucket}/{tmp_path.name}"}
    first = start("--checkpoint-every", 100, **options)
    until(lambda: len(list((fetch() / "videos").glob("*.json"))) >= 2, "the second video")
    first.kill()
    second = start("--checkpoint-every", 100, **options)
    assert second.wait() == 0, second.told
    assert "finished before" in second.told
    out = fetch()
    check_nothing_is_lost(out, reference)
    assert not (out / "checkpoints").exists() and not (out / "driver.lock").exists()


def test_a_store_that_does_not_answer_for_a_while_costs_no_video(start, bucket, tunnel, fetch, reference, tmp_path):
    environment = {"AWS_ENDPOINT_URL": tunnel.url, "AWS_MAX_ATTEMPTS": "1"}
    driver = start("--tries", 1, out=f"{bucket}/{tmp_path.name}", environment=environment)
    until(lambda: told(fetch(), "done"), "the first video")
    tunnel.is_down = True
    tunnel.cut()
    until(lambda: "cannot be used" in driver.told, "it to say so")
    time.sleep(5)
    assert driver.process.poll() is None, driver.told
    tunnel.is_down = False
    assert driver.wait() == 0, driver.told
    check_nothing_is_lost(fetch(), reference)


@pytest.mark.parametrize("away", ["is_down", "is_silent"])
def test_a_driver_that_is_stopped_while_its_store_is_away_ends_before_it_is_killed(
    start, bucket, tunnel, fetch, tmp_path, away
):
    """Ray and Slurm send SIGTERM, and SIGKILL some seconds later: 3 s is Ray's patience."""
    driver = start(out=f"{bucket}/{tmp_path.name}", environment={"AWS_ENDPOINT_URL": tunnel.url})
    until(lambda: told(fetch(), "start"), "the first video")
    setattr(tunnel, away, True)
    tunnel.cut()
    time.sleep(3)
    driver.process.send_signal(signal.SIGTERM)
    assert driver.wait(3) == 143
    assert "of 4 videos; run it again for the rest" in driver.told
