"""What a person sees while a batch runs: one live bar on a terminal, plain lines elsewhere, a table at the end."""

import time
from collections import Counter
from collections.abc import Sequence
from typing import TypedDict

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from cluster.events import Event
from jobs.console import count, visible
from jobs.driver.standing import Standing
from jobs.store.items import RenderItem, Sidecar
from jobs.store.known import Done

LINE_INTERVAL_S = 10.0
LONGEST_TABLE = 100


class BatchView:
    """Shows the events of a batch. Use as a context manager; `show` gets each once `standing` has noted it."""

    def __init__(self, console: Console, standing: Standing):
        self._standing = standing
        self._console = console
        self._last_line_s = 0.0
        self._bar: Progress | None = None
        self._task = TaskID(0)

    def __enter__(self) -> "BatchView":
        if self._console.is_terminal:
            self._bar = _bar(self._console)
            self._task = self._bar.add_task("starting", total=self._standing.todo)
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, event: Event) -> None:
        """Print the line of one event, or move the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=self._standing.completed, description=self._description)
        if (line := self._line(event)) and (self._bar is None or event.kind in LASTING):
            self._last_line_s = time.monotonic()
            self._console.print(line, soft_wrap=True)

    def take(self, items: Sequence[RenderItem]) -> None:
        """They have come to the batch; says so."""
        ids = items[0].id if len(items) == 1 else f"{items[0].id} to {items[-1].id}"
        self.say(f"added: {ids} ({self._standing.todo} in all)")

    def drop(self, item: RenderItem) -> None:
        """It was withdrawn while it waited; says so."""
        self.say(f"{item.id}: withdrawn ({self._standing.todo} in all)")

    def say(self, sentence: str) -> None:
        """Print a line, above the bar if there is one."""
        if self._bar is not None:
            self._bar.update(self._task, total=self._standing.todo)
        self._console.print(sentence, soft_wrap=True)

    @property
    def _description(self) -> str:
        """What runs, how fast, and for how long still."""
        running = " ".join(self._standing.under_way) or ("" if self._standing.num_done else "starting")
        return ", ".join(filter(None, [running, *self._standing.pace_words]))

    @property
    def _so_far(self) -> str:
        """`3 of 60, 340 videos an hour, about 12 min left`."""
        return ", ".join([f"{self._standing.num_done} of {self._standing.todo}", *self._standing.pace_words])

    def _line(self, event: Event) -> str | None:
        match event.kind:
            case "gang_starting":
                return f"gang {event.gang}: starting"
            case "gang_ready":
                how = "taken warm" if event.was_warm else "ready"
                return f"gang {event.gang}: {how}, {count(len(event.hosts or ()), 'rank')} on {_hosts(event.hosts)}"
            case "gang_waiting":
                return f"gang {event.gang}: waiting for a place: {event.error}"
            case "gang_lost":
                return f"gang {event.gang}: lost: {event.error}"
            case "gang_closed":
                return f"gang {event.gang}: closed: {event.error}"
            case "item_started":
                again = f" (attempt {event.attempts})" if event.attempts > 1 else ""
                return f"{event.item.id}: {' '.join(event.item.prompt.split())[:60]}{again}"
            case "item_progress" if time.monotonic() - self._last_line_s >= LINE_INTERVAL_S:
                return f"{event.item.id}: {event.fraction:.0%} ({self._so_far})"
            case "item_done":
                seconds = Sidecar.model_validate(event.result).seconds.total
                return f"{event.item.id}: done in {seconds:.1f} s ({self._so_far})"
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


def print_table(console: Console, rows: Sequence[VideoRow], noun: str, place: str, spent: Sequence[str] = ()) -> None:
    """The table at the end, of a big batch only what failed and the first ones; what was spent, where the files are.

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
    if spent:
        console.print(f"in all {', '.join(spent)}")
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
