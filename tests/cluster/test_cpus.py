"""The CPUs that count are those that this process may use."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cluster import cpus
from cluster.cpus import cgroup_limit, usable_cpus


@pytest.fixture
def limits(tmp_path, monkeypatch) -> Path:
    """The folder of this process in a tree of files as the kernel shows it: a test may not make real groups."""
    own = [line.split(":", 2) for line in Path("/proc/self/cgroup").read_text().splitlines()]
    [place] = [place for _, controllers, place in own if not controllers] or ["/"]
    folder = tmp_path / place.lstrip("/")
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(cpus, "CGROUPS", tmp_path)
    return folder


def test_limits_of_a_container_are_the_lowest_on_the_way_up(limits: Path):
    (limits / "memory.max").write_text("max\n")
    (limits / "cpu.max").write_text("150000 100000\n")
    assert cgroup_limit("memory.max", "memory/memory.limit_in_bytes") is None
    assert cgroup_limit("cpu.max", "cpu/cpu.cfs_quota_us") == 150000


@pytest.mark.parametrize(("quota", "counted"), [("50000 100000", 1), ("150000 100000", 1), ("max 100000", 2)])
def test_whole_cpus_of_a_quota_are_counted(limits: Path, monkeypatch, quota: str, counted: int):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    (limits / "cpu.max").write_text(f"{quota}\n")
    assert usable_cpus() == counted


def test_a_cpuset_counts():
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert usable_cpus() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_every_rank_of_a_machine_takes_another_core(tmp_path):
    code = (
        "import os, sys\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from cluster.cpus import take_core\n"
        "claim = take_core()\n"
        "print(claim is not None, flush=True)\n"
        "sys.stdin.read()\n"
    )
    command = [sys.executable, "-c", code]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": {"TMPDIR": str(tmp_path)}}
    first = subprocess.Popen(command, **pipes)
    try:
        assert first.stdout and first.stdout.readline() == "True\n"
        second = subprocess.run(command, input="", capture_output=True, text=True, env={"TMPDIR": str(tmp_path)})
        assert second.stdout == "False\n"
    finally:
        first.communicate("")
    third = subprocess.run(command, input="", capture_output=True, text=True, env={"TMPDIR": str(tmp_path)})
    assert third.stdout == "True\n"  # a claim ends with its process
