"""What would keep Ray from starting here is found beforehand, each with a remedy."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import cpus, host
from cluster.host import Obstacle, obstacles, temporary_directory
from cluster.runtime import ClusterUnavailable, ray_runtime

CHECKOUT = Path(__file__).parents[2]
LONG = "x" * 90


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch):
    for name in ("RAY_TMPDIR", "TMPDIR", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


def test_this_machine_has_none():
    assert list(obstacles()) == []


def test_a_long_temporary_directory_is_passed_over_for_a_short_one(monkeypatch):
    monkeypatch.setenv("TMPDIR", f"/tmp/{LONG}")
    assert temporary_directory() == Path("/tmp/ray")


@pytest.mark.parametrize(("named", "why"), [(f"/tmp/{LONG}", "longer than 43 bytes"), ("/proc", "cannot be written")])
def test_a_place_that_was_named_and_will_not_do_is_said(monkeypatch, named: str, why: str):
    monkeypatch.setenv("RAY_TMPDIR", named)
    [obstacle] = obstacles()
    assert named in obstacle.found and why in obstacle.found
    assert "set RAY_TMPDIR to a short path" in obstacle.remedy


def test_a_full_disk_is_said(monkeypatch):
    monkeypatch.setattr(host, "LEAST_FREE_BYTES", 2**60)
    place = temporary_directory()
    assert isinstance(place, Obstacle) and "MiB free" in place.found


@pytest.mark.parametrize(
    ("which", "limit", "found"),
    [
        (resource.RLIMIT_NOFILE, 64, "Ray needs 256 open files, but 64 are allowed"),
        (resource.RLIMIT_FSIZE, 2**20, "Ray needs 100 MiB a file, but 1 MiB is allowed"),
        (resource.RLIMIT_FSIZE, 40 * 2**10, "Ray needs 100 MiB a file, but 40 KiB is allowed"),
        (resource.RLIMIT_AS, 2**30, "Ray needs 32768 MiB of address space, but 1024 MiB is allowed"),
    ],
)
def test_limits_of_the_shell_are_found(which: int, limit: int, found: str):
    program = "from cluster.host import obstacles; print(*obstacles(), sep='\\n')"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=CHECKOUT,
        preexec_fn=lambda: resource.setrlimit(which, (limit, limit)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.startswith(found) and "ulimit" in done.stdout


def test_a_container_that_allows_few_processes_is_found(tmp_path, monkeypatch):
    own = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    [place] = [place for _, controllers, place in own if not controllers] or ["/"]
    folder = tmp_path / place.lstrip("/")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "pids.max").write_text("20\n")
    monkeypatch.setattr(cpus, "CGROUPS", tmp_path)
    [obstacle] = obstacles()
    assert obstacle.found == "Ray needs 300 more processes and threads, but 20 are allowed"


def test_ray_is_not_even_started_then(monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", f"/tmp/{LONG}")
    with pytest.raises(ClusterUnavailable, match="longer than 43 bytes: set RAY_TMPDIR to a short path"), ray_runtime():
        pass


def test_neither_a_home_nor_a_name_of_the_user_is_needed(monkeypatch):
    from cluster.token import default_file, keep_private

    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)  # of no entry in /etc/passwd
    assert default_file() is None
    keep_private()
