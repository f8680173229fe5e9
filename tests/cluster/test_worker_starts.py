"""A worker's process that ends at its start is told from one that is on its way, by Ray's logs."""

import os
import subprocess
from pathlib import Path

import pytest

from cluster.worker_starts import WorkerStarts

LINE = (
    "[2026-11-26 00:13:28 I 9749 9749] (raylet) worker_pool.cc:564: Started worker process with pid {} worker_id={}\n"
)


@pytest.fixture
def dead() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def note(logs: Path, pid: int, worker: str) -> None:
    with (logs / "raylet.out").open("a") as file:
        file.write(LINE.format(pid, worker))


def test_what_a_dead_one_said_is_shown(tmp_path, dead: int):
    (tmp_path / "raylet.err").write_text("said before\n")
    starts = WorkerStarts(tmp_path)
    assert starts.failed() is None
    note(tmp_path, dead, "f758")
    assert starts.failed() == "it said nothing; it may have been killed"
    with (tmp_path / "raylet.err").open("a") as file:
        file.write("Traceback (most recent call last):\nImportError: cannot import name 'SimpleQueue'\n")
    assert starts.failed() == "Traceback (most recent call last):\nImportError: cannot import name 'SimpleQueue'"


def test_one_that_runs_or_that_ray_watches_has_not_failed(tmp_path, dead: int):
    starts = WorkerStarts(tmp_path)
    note(tmp_path, os.getpid(), "aaaa")
    note(tmp_path, dead, "bbbb")
    (tmp_path / f"worker-bbbb-01000000-{dead}.err").touch()
    assert starts.failed() is None


def test_one_of_an_earlier_gang_does_not_count(tmp_path, dead: int):
    note(tmp_path, dead, "cccc")
    assert WorkerStarts(tmp_path).failed() is None
