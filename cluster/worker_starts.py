"""Processes of workers that ended before they could answer: Ray starts them again and again, and says nothing."""

import re
from collections.abc import Iterator
from pathlib import Path

import psutil

STARTED = re.compile(r"Started worker process with pid (\d+) worker_id=(\w+)")


class WorkerStarts:
    """Looks for them in the logs that Ray keeps on this machine, from now on; `logs` is their directory."""

    def __init__(self, logs: Path):
        self._logs = logs
        self._started = _Growth(logs / "raylet.out")
        self._said = _Growth(logs / "raylet.err")

    @classmethod
    def of_this_node(cls) -> "WorkerStarts":
        """Of the node that the driver is attached to."""
        from ray._private.worker import global_worker

        assert global_worker.node is not None
        return cls(Path(global_worker.node.get_logs_dir_path()))

    def failed(self) -> str | None:
        """What was said last on this machine, if a worker's process has ended at its start; else None."""
        if any(self._has_ended(int(pid)) and not self._has_log(worker) for pid, worker in self._all_started()):
            return self._said.text().strip() or "it said nothing; it may have been killed"
        return None

    def _all_started(self) -> Iterator[tuple[str, str]]:
        return iter(STARTED.findall(self._started.text()))

    def _has_ended(self, pid: int) -> bool:
        try:
            return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return True

    def _has_log(self, worker: str) -> bool:
        """A worker that has come as far as that is watched by Ray itself."""
        return any(self._logs.glob(f"worker-{worker}-*"))


class _Growth:
    """What is written to a file from now on."""

    def __init__(self, path: Path):
        self._path = path
        self._begin = path.stat().st_size if path.is_file() else 0

    def text(self) -> str:
        try:
            with self._path.open("rb") as file:
                file.seek(self._begin)
                return file.read().decode(errors="replace")
        except OSError:  # Another user's, or there is none.
            return ""
