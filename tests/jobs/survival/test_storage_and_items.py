"""Storages that are full, writes that are torn, items that fail, and gangs that fit nowhere."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from jobs.store.items import ATTEMPTS
from jobs.store.known import survey
from jobs.store.open import open_storage
from tests.jobs.store.example import item, publish, settings
from tests.jobs.survival.conftest import NODE
from tests.jobs.survival.harness import (
    PROMPTS,
    ROOT,
    Driver,
    check_no_debris,
    check_no_rank_lives,
    check_nothing_is_lost,
    checksums,
    told,
    until,
)
from tests.jobs.survival.partition import far_node

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB, almost full of a file `ballast`."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.mark.slow
def test_a_full_disk_makes_the_batch_wait_and_leaves_no_part_of_a_file(start, reference, small_disk, tmp_path):
    out = small_disk / "out"
    driver = start(out=out)
    until(lambda: told(out, "start"), "the first video")
    fill(small_disk / "ballast")
    until(lambda: "No space left on device" in driver.told, "it to say so")
    assert driver.process.poll() is None
    assert not [path for path in out.rglob("*.mp4") if path.parent.name == "videos" and not path.stat().st_size]
    (small_disk / "ballast").unlink()
    assert driver.wait() == 0, driver.told
    check_nothing_is_lost(out, reference)


@pytest.mark.slow
def test_a_full_disk_costs_several_ranks_neither_their_gang_nor_a_rendering(start, reference_of_pairs, small_disk):
    out, ballast = small_disk / "out", small_disk / "ballast"
    driver = start("--ring", 2, out=out)
    until(lambda: told(out, "start"), "the first video")
    fill(ballast)
    until(lambda: driver.told.count("to be tried again") >= 2, "it to be refused twice")
    ballast.unlink()
    assert driver.wait() == 0, driver.told
    assert not told(out, "gang_lost")
    assert "".join(path.read_text() for path in (out / "logs").glob("0*.jsonl")).count('"denoised"') <= len(PROMPTS)
    check_nothing_is_lost(out, reference_of_pairs)


def fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(4096))


@pytest.mark.parametrize("when", ["before all", "before the file gets its name", "before the sidecar is written"])
def test_a_torn_publication_is_no_video_and_leaves_no_trace_after_the_next(tmp_path, when):
    """The process is killed between writing and naming the file, behind its poster, or behind the file itself."""
    code = """
import os, sys
from jobs.store.local import LocalStorage
from tests.jobs.store import example
batch = example.settings(sys.argv[1])
write = LocalStorage.write
if "sidecar" in sys.argv[2]:
    LocalStorage.write = lambda *given: os.kill(os.getpid(), 9) if given[1].endswith(".json") else write(*given)
elif "file" in sys.argv[2]:
    LocalStorage.publish = lambda *_: os.kill(os.getpid(), 9)
else:
    example.sidecar_of = lambda *_: os.kill(os.getpid(), 9)
example.publish(batch, example.item())
"""
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path), when], cwd=ROOT, timeout=60)
    assert killed.returncode == -9
    batch, one, storage = settings(tmp_path), item(), open_storage(tmp_path)
    assert survey(storage, batch, [one]).finished == {}
    assert ("sidecar" in when) == (storage.stored(f"{one.name}.mp4") is not None)
    assert (when == "before all") == (storage.stored(one.poster) is None)
    storage.remove(ATTEMPTS)
    publish(batch, one)
    assert list(survey(storage, batch, [one]).finished) == ["0000"]
    check_no_debris(tmp_path)


@pytest.mark.slow
def test_a_poison_item_is_given_up_and_taken_up_again_by_retry(start, reference, tmp_path):
    """One video cannot be published: where it belongs there is a directory."""
    out = tmp_path / "out"
    poisoned = out / "videos" / "0001-grass-s1.mp4" / "in the way"
    poisoned.mkdir(parents=True)
    driver = start()
    assert driver.wait() == 3, driver.told
    [failed] = told(out, "fail")
    assert (failed["id"], failed["n"], failed["why"]) == ("0001", 2, "item")
    assert "Is a directory" in failed["error"]
    assert "publish" in (out / "failures" / "0001.txt").read_text()
    assert {line["id"] for line in told(out, "done")} == {"0000", "0002", "0003"}
    again = start()
    assert again.wait() == 3 and "1 given up before (resca retry)" in again.told
    poisoned.rmdir()
    poisoned.parent.rmdir()
    retry = Driver("retry", out, log=tmp_path / "retry.log")
    assert retry.wait() == 0, retry.told
    check_nothing_is_lost(out, reference)
    check_no_rank_lives(retry)


@pytest.mark.slow
def test_a_gang_that_fits_nowhere_is_refused_and_leaves_nothing(start, cluster, tmp_path):
    driver = start("--address", cluster.address, "--ring", 3, "--gangs", 2)
    assert driver.wait() == 2
    sentence = driver.told.strip().splitlines()[-1]
    assert "2 gangs of 3 ranks asked for 6 CPUs" in sentence and "the cluster has 2 CPUs on 3 nodes" in sentence
    assert not (tmp_path / "out").exists()


@pytest.fixture
def link(head) -> Iterator[str]:
    """The link to a node with one CPU in a network namespace of its own."""
    if os.geteuid():
        pytest.skip("only root can make network namespaces")
    with far_node(head) as name:
        yield name


@pytest.mark.slow
def test_a_partition_is_found_by_our_own_heartbeat(start, reference_of_single_cores, link, head, tmp_path):
    out = tmp_path / "out"
    driver = start("--address", head.address, "--gangs", "auto", "--heartbeat", 6)
    until(lambda: told(out, "start"), "a video on the far node")
    subprocess.run(["ip", "link", "set", link, "down"], check=True)
    until(lambda: "No answer for 6 s from rank 0 on 10.77.0.2" in driver.told, "the heartbeat")
    head.add_node(**NODE)
    assert driver.wait() == 0, driver.told
    assert checksums(out) == reference_of_single_cores
