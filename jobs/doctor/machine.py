"""Memory, disks and limits of this machine."""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

import psutil

from cluster.cpus import cgroup_limit, cpu_quota
from cluster.host import temporary_directory
from jobs.doctor.finding import Finding, ok, problem, size, warning
from jobs.options.batch import DoctorOptions
from jobs.store.files import existing
from jobs.store.open import directory_of

LITTLE_BYTES = 2 * 2**30
SHARED_BYTES = 2**30
# Ray's own advice; it raises the soft limit up to the hard one by itself.
OPEN_FILES = 8192
FULL_BYTES, SCARCE_BYTES = 100 * 2**20, 5 * 2**30
# Above this part Ray writes no more objects to the disk (RAY_local_fs_capacity_threshold).
RAY_FULL = 0.95


def check_memory(options: DoctorOptions) -> Iterator[Finding]:
    """Host memory and CPUs, and what a container may take of them."""
    memory = psutil.virtual_memory()
    limit = cgroup_limit("memory.max", "memory/memory.limit_in_bytes")
    limited = f", limited to {size(limit)} by a container" if limit and limit < memory.total else ""
    free = min(memory.available, limit or memory.available)
    found = f"{size(memory.total)}{limited}, {size(memory.available)} free; {_cpus()}"
    if free >= LITTLE_BYTES:
        yield ok(found)
    else:
        yield warning(found, "end what else runs, or give the container more (docker run --memory)")


def _cpus() -> str:
    cpus = len(os.sched_getaffinity(0))
    quota = cpu_quota()
    limited = f", limited to {quota:.3g}" if quota and quota < cpus else ""
    return f"{cpus} CPUs{limited}"


def check_shared_memory(options: DoctorOptions) -> Iterator[Finding]:
    """Ray's object store and NCCL's buffers lie in /dev/shm; containers often have 64 MiB of it."""
    if not Path("/dev/shm").is_dir():
        yield warning("there is no /dev/shm", "Ray keeps its objects in /tmp then, which is slower")
        return
    usage = psutil.disk_usage("/dev/shm")
    found = f"/dev/shm has {size(usage.total)}, {size(usage.free)} free"
    if usage.free >= SHARED_BYTES:
        yield ok(found)
    else:
        yield warning(found, "start the container with docker run --shm-size=8g, or remove what is left there")


def check_open_files(options: DoctorOptions) -> Iterator[Finding]:
    """Every worker of Ray opens many connections."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY or hard >= OPEN_FILES:
        yield ok(f"at most {soft}, can be raised to {'any number' if hard == resource.RLIM_INFINITY else hard}")
    else:
        yield warning(f"at most {hard}", f"raise it to {OPEN_FILES} or more: nofile in /etc/security/limits.conf")


def check_disk(options: DoctorOptions) -> Iterator[Finding]:
    """Space at the output directory, at Ray's temporary directory and at the hub's cache."""
    from huggingface_hub.constants import HF_HUB_CACHE

    if options.out and (directory := directory_of(options.out)):
        yield from _space(directory, "the output directory", "free some, or name another --out")
    if isinstance(ray := temporary_directory(), Path):
        yield from _space(ray, "Ray's temporary directory", "remove old sessions there, or set RAY_TMPDIR", RAY_FULL)
    yield from _space(Path(HF_HUB_CACHE), "the hub's cache", "free some, or set HF_HOME to a larger disk")


def _space(path: Path, what: str, remedy: str, full: float = 1.0) -> Iterator[Finding]:
    usage = psutil.disk_usage(str(existing(path)))
    if not usage.total:  # Such as /proc: that nothing can be written there, another check says.
        return
    found = f"{size(usage.free)} free of {size(usage.total)} at {what}, {path}"
    if usage.free < FULL_BYTES:
        yield problem(found, remedy)
    elif usage.free < SCARCE_BYTES or usage.used > full * usage.total:
        yield warning(found, remedy)
    else:
        yield ok(found)
