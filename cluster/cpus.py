"""How many CPUs this process may use, one of its own, and other limits of the control groups (cgroups) it is in."""

import fcntl
import os
import tempfile
from pathlib import Path
from typing import IO

CGROUPS = Path("/sys/fs/cgroup")
PERIOD_US = 100_000  # the kernel's own, which hardly anyone changes


def usable_cpus() -> int:
    """The CPUs that this process may run on (taskset, Slurm), or the whole ones of its time quota; at least 1."""
    cpus, quota = len(os.sched_getaffinity(0)), cpu_quota()
    return cpus if quota is None else max(1, min(cpus, int(quota)))


def take_core() -> IO[str] | None:
    """Keep all threads of this process to a core that no other rank of this machine has taken, if there is one left.

    Returns what holds the claim, which ends with the process.
    """
    for core in sorted(os.sched_getaffinity(0)):
        claim = (Path(tempfile.gettempdir()) / f"resca-core-{core}").open("w")
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            claim.close()
            continue
        for thread in Path("/proc/self/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})
        return claim
    return None


def cpu_quota() -> float | None:
    """The CPUs' worth of time that this process may use, as containers limit it; None without a limit."""
    quota_us = cgroup_limit("cpu.max", "cpu/cpu.cfs_quota_us")
    return quota_us / PERIOD_US if quota_us else None


def cgroup_limit(name: str, name_v1: str) -> int | None:
    """The lowest limit that holds for this process, of cgroups of version 2 or 1; None if there is none."""
    try:
        own = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    controller, _, file = name_v1.partition("/")
    found: list[int] = []
    for line in own:
        _, controllers, place = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        root, leaf = (CGROUPS / controller, file) if controllers else (CGROUPS, name)
        here = root / place.lstrip("/")
        found += [limit for folder in (here, *here.parents) if (limit := _limit(folder / leaf)) is not None]
    return min(found, default=None)


def _limit(file: Path) -> int | None:
    """The number in a file; what is no limit is `max`, -1 or the largest number there is."""
    try:
        first = file.read_text(encoding="utf-8").split()[0]
    except (OSError, IndexError):
        return None
    return int(first) if first.isdigit() and int(first) < 2**62 else None
