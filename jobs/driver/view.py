"""What a person sees while a batch runs: one live bar on a terminal, plain lines elsewhere, a table at the end."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import TypedDict

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from cluster.events import BatchStopping, Event, ItemRunning
from jobs.console import count, duration, visible
from jobs.driver.eta import Eta
from jobs.store.items import RenderItem, Sidecar
from jobs.store.known import Done

LINE_INTERVAL_S = 10.0
LONGEST_TABLE = 100


class BatchView:
    """Shows the events of a batch of `total` videos. Use as a context manager; `show` is the batch's `on_event`."""

    def __init__(self, console: Console, total: int, eta: Eta | None = None):
        self.total = total
        self._eta = eta
        self.num_done = 0
        self._num_failed = 0
        self._console = console
        self._fractions: dict[str, float] = {}
        self._last_line_s = 0.0
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> "BatchView":
        if self._console.is_terminal:
            self._bar = _bar(self._console)
            self._task = self._bar.add_task("starting", total=self.total)
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, event: Event) -> None:
        """Take note of one event; print its line, or move the bar."""
        self._follow(event)
        if self._bar is not None:
            running = " ".join(sorted(self._fractions)) or ("" if self.num_done else "starting")
            completed = self.num_done + self._num_failed + sum(self._fractions.values())
            self._bar.update(self._task, completed=completed, description=f"{running}{self._left()}".removeprefix(", "))
        if (line := self._line(event)) and (self._bar is None or event.kind in LASTING):
            self._last_line_s = time.monotonic()
            self._console.print(line, soft_wrap=True)

    def _left(self) -> str:
        """How long the rest will take, where that is known."""
        left_s = self._eta.left_s if self._eta else None
        return f", about {duration(left_s)} left" if left_s else ""

    def _follow(self, event: Event) -> None:
        """Which videos are running, and how far they are."""
        if self._eta is not None:
            self._eta.note(event)
        if isinstance(event, ItemRunning):
            self._fractions[event.item.id] = event.fraction
        elif not isinstance(event, BatchStopping) and event.job:
            self._fractions.pop(event.job.item.id, None)
        self.num_done += event.kind == "item_done"
        self._num_failed += event.kind == "item_failed"

    def _line(self, event: Event) -> str | None:
        match event.kind:
            case "gang_starting":
                return f"gang {event.gang}: starting"
            case "gang_ready":
                return f"gang {event.gang}: ready, {count(len(event.hosts or ()), 'rank')} on {_hosts(event.hosts)}"
            case "gang_waiting":
                return f"gang {event.gang}: waiting for a place: {event.error}"
            case "gang_lost":
                return f"gang {event.gang}: lost: {event.error}"
            case "gang_closed":
                return f"gang {event.gang}: closed: {event.error}"
            case "item_started":
                again = f" (attempt {event.attempts})" if event.attempts > 1 else ""
                return f"{event.item.id}: {event.item.prompt[:60]}{again}"
            case "item_progress" if time.monotonic() - self._last_line_s >= LINE_INTERVAL_S:
                return f"{event.item.id}: {event.fraction:.0%}"
            case "item_done":
                seconds = Sidecar.model_validate(event.result).seconds.total
                return f"{event.item.id}: done in {seconds:.1f} s ({self.num_done} of {self.total}{self._left()})"
            case "item_retried":
                return f"{event.item.id}: to be tried again: {event.error}"
            case "item_failed":
                return f"{event.item.id}: failed: {event.error}"
        return None


# Lines that stay on a terminal, above the bar.
LASTING = ("gang_waiting", "gang_lost", "gang_closed", "item_done", "item_retried", "item_failed")


class DoneRow(TypedDict):
    """A video that is there: its place, seconds over all stages, TFLOPs spent, full sampling's FLOPs over those."""

    id: str
    video: str
    status: str
    method: str
    dense_steps: int
    sparse_steps: int
    seconds: float
    tflops: float
    flops_ratio: float | None
    sha256: str


class FailedRow(TypedDict):
    """A video that is not there, and the reason."""

    id: str
    video: None
    status: str
    method: str
    error: str | None


VideoRow = DoneRow | FailedRow


def done_row(item: RenderItem, method: str, where: str, done: Done, status: str) -> DoneRow:
    """The row of a video that lies at `where`."""
    return {
        "id": item.id,
        "video": where,
        "status": status,
        "method": method,
        "dense_steps": done.dense_steps,
        "sparse_steps": done.sparse_steps,
        "seconds": round(sum(done.seconds.values()), 3),
        "tflops": done.flops / 1e12,
        "flops_ratio": done.flops_full / done.flops if done.flops else None,
        "sha256": done.sha256,
    }


def failed_row(item: RenderItem, method: str, error: str | None, status: str) -> FailedRow:
    """The row of a video that is not there."""
    return {"id": item.id, "video": None, "status": status, "method": method, "error": error}


def print_table(console: Console, rows: Sequence[VideoRow], noun: str, place: str) -> None:
    """The table at the end, of a big batch only what failed and the first ones; and where the files are.

    `noun` is what each is: a video or an image.
    """
    shown = sorted(rows, key=lambda row: row["video"] is not None)[:LONGEST_TABLE] if is_big(rows) else rows
    has_several = len({row["method"] for row in rows}) > 1
    table = Table(noun, *(["method"] if has_several else []), "status", "dense/sparse", "seconds", "FLOPs ratio")
    for row in shown:
        video, *others = _cells(row)
        table.add_row(video, *([row["method"]] if has_several else []), *others)
    console.print(table)
    if is_big(rows):
        statuses = Counter(row["status"] for row in rows)
        counts = ", ".join(f"{number} {status}" for status, number in statuses.items())
        console.print(f"and {len(rows) - len(shown)} more; in all: {counts}")
    console.print(f"{noun}s: {place}", soft_wrap=True)


def _cells(row: VideoRow) -> tuple[str, ...]:
    if "error" in row:
        return row["id"], visible(f"{row['status']}: {row['error']}"), "", "", ""
    steps = f"{row['dense_steps']}/{row['sparse_steps']}"
    ratio = "" if row["flops_ratio"] is None else f"{row['flops_ratio']:.2f}x"
    return row["video"].rpartition("/")[2], row["status"], steps, f"{row['seconds']:.1f}", ratio


def is_big(rows: Sequence[VideoRow]) -> bool:
    """Whether nobody would read all of them."""
    return len(rows) > LONGEST_TABLE


def _bar(console: Console) -> Progress:
    columns = TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=console, transient=True)


def _hosts(hosts: Sequence[str] | None) -> str:
    return ", ".join(dict.fromkeys(hosts or ()))
