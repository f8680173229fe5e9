"""What Ray needs of a machine to start on it: room for its files, and limits that its processes stay within."""

import os
import resource
import shutil
import socket
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from cluster.cpus import cgroup_limit

# What goes through Ray here are items and small results; large data go to storage.
OBJECT_STORE_BYTES = 100 * 2**20
# Below its directory Ray makes session_2026-11-25_23-59-59_123456_4194304/sockets/plasma_store; a socket's path has at
# most 107 bytes.
LONGEST_PATH = 107 - 64
LEAST_FREE_BYTES = 50 * 2**20
# Of a Ray with one worker; a thread counts as much as a process.
THREADS, OPEN_FILES = 300, 256
# Ray's processes reserve much more address space than they use.
ADDRESS_SPACE_BYTES = 32 * 2**30


@dataclass(frozen=True, kw_only=True)
class Obstacle:
    """Why Ray cannot start here, and what to do about it."""

    found: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.found}: {self.remedy}"


def obstacles() -> Iterator[Obstacle]:
    """All that would keep Ray from starting on this machine, as far as it can be told beforehand."""
    place = temporary_directory()
    if isinstance(place, Obstacle):
        yield place
    yield from _limits()
    if not _has_loopback():
        found = "Ray cannot be reached on 127.0.0.1, as the loopback interface is down or has another address"
        yield Obstacle(found=found, remedy="ip link set lo up, and ip address add 127.0.0.1/8 dev lo")


def temporary_directory() -> Path | Obstacle:
    """Where Ray is to keep sockets and logs: its own choice if that will do, else a short path in /tmp."""
    named = os.environ.get("RAY_TMPDIR")
    usual = Path(named or os.environ.get("TMPDIR") or "/tmp") / "ray"
    others = [] if named else [Path("/tmp/ray"), Path(f"/tmp/resca-{os.getuid()}/ray")]
    reasons = [_unusable(place) for place in (usual, *others)]
    for place, reason in zip((usual, *others), reasons, strict=True):
        if reason is None:
            return place
    remedy = "set RAY_TMPDIR to a short path on a disk where you may write"
    return Obstacle(found=f"Ray has no place for its files: {reasons[-1]}", remedy=remedy)


def _unusable(place: Path) -> str | None:
    """Why Ray cannot keep its files there; None if it can."""
    path = place.absolute()
    if len(os.fsencode(path)) > LONGEST_PATH:
        return f"{path} is longer than {LONGEST_PATH} bytes"
    here = next(folder for folder in (path, *path.parents) if os.path.exists(folder))
    try:
        with tempfile.TemporaryDirectory(dir=here) as folder:
            (Path(folder) / "probe").write_bytes(bytes(4096))
    except OSError as error:
        return f"{here} cannot be written ({error.strerror})"
    free = shutil.disk_usage(here).free
    return f"{here} has {free / 2**20:.0f} MiB free" if free < LEAST_FREE_BYTES else None


def _limits() -> Iterator[Obstacle]:
    """Limits of this process, which Ray's processes inherit, that are too low."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]  # Ray raises the soft one itself.
    if files != resource.RLIM_INFINITY and files < OPEN_FILES:
        yield _limited("open files", files, OPEN_FILES, "ulimit -Hn, or nofile in /etc/security/limits.conf")
    if (threads := _threads_left()) is not None and threads < THREADS:
        yield _limited("more processes and threads", threads, THREADS, "ulimit -u, or docker run --pids-limit")
    for which, what, needed, how in (
        (resource.RLIMIT_FSIZE, "a file", OBJECT_STORE_BYTES, "ulimit -f"),
        (resource.RLIMIT_AS, "of address space", ADDRESS_SPACE_BYTES, "ulimit -v"),
    ):
        limit = resource.getrlimit(which)[0]
        if limit != resource.RLIM_INFINITY and limit < needed:
            found = f"Ray needs {needed >> 20} MiB {what}, but {_size(limit)} is allowed"
            yield Obstacle(found=found, remedy=f"raise it: {how} unlimited")


def _limited(what: str, limit: int, needed: int, how: str) -> Obstacle:
    return Obstacle(found=f"Ray needs {needed} {what}, but {max(0, limit)} are allowed", remedy=f"raise it: {how}")


def _size(num_bytes: int) -> str:
    return f"{num_bytes >> 20} MiB" if num_bytes >> 20 else f"{num_bytes / 2**10:.3g} KiB"


def _threads_left() -> int | None:
    """How many threads this user and this container may still start; None if that is not limited."""
    container = cgroup_limit("pids.max", "pids/pids.max")
    limit = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if limit == resource.RLIM_INFINITY or os.geteuid() == 0:  # The system does not hold root to it.
        return container
    left = limit - sum(_num_threads(process) for process in psutil.process_iter(["uids", "num_threads"]))
    return left if container is None else min(left, container)


def _num_threads(process: psutil.Process) -> int:
    """The threads of a process that is this user's; 0 of another's."""
    uids, threads = process.info["uids"], process.info["num_threads"]  # pyright: ignore[reportAttributeAccessIssue]
    return threads or 0 if uids and uids.real == os.getuid() else 0


def _has_loopback() -> bool:
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=1).close()
    except OSError:
        return False
    return True
