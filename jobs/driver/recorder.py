"""What the driver writes while a batch runs: the ledger, tracebacks of failures, the gallery and the metrics."""

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, NotRequired, TypedDict, Unpack

from cluster.events import Event, GangEvent, ItemDone, ItemEvent, ItemFailed, ItemRunning
from jobs.driver.gallery.gallery import Entry, Gallery, Status
from jobs.errors import InfrastructureError
from jobs.store.items import CHECKPOINTS, BatchSettings, RenderItem, Sidecar
from jobs.store.known import Done, Known, remove_video
from jobs.store.ledger import Ledger
from jobs.store.logs import FAILURES
from jobs.store.storage import Storage

if TYPE_CHECKING:
    from jobs.driver.metrics import BatchMetrics

logger = logging.getLogger(__name__)
GALLERY_S = 5.0
SHOWN = {"id", "prompt", "seed", "height", "width", "num_frames", "steps"}  # of an item, in the gallery
# A disk that is full may be emptied, a storage that is away may come back: so long a driver waits for it.
LONGEST_TROUBLE_S = 1800.0


class About(TypedDict):
    """What the ledger says of every attempt: its number, and the gang."""

    n: int
    g: int | None


class Shown(TypedDict):
    """What the gallery shows of a video beside what was asked for."""

    status: Status
    video: NotRequired[str]
    poster: NotRequired[bool]
    error: NotRequired[str | None]
    seconds: NotRequired[dict[str, float]]
    dense_steps: NotRequired[int]
    sparse_steps: NotRequired[int]
    attempts: NotRequired[int]
    gang: NotRequired[int | None]


class Recorder:
    """`note` is the batch's `on_event`, `tick` its `on_tick`; `close` says how the batch has ended.

    `words` are what the gallery says of the batch as a whole.
    """

    def __init__(
        self,
        storage: Storage,
        settings: BatchSettings,
        items: Sequence[RenderItem],
        known: Known,
        title: str,
        words: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._storage, self._settings = storage, settings
        self._ledger = Ledger(storage)
        self._index = {item.id: index for index, item in enumerate(items)}
        self._gallery = Gallery(lambda name, text: storage.write(name, text.encode()), title)
        self._not_shown = {item.id: item for item in items}
        self._known, self._words = known, words
        self._metrics: BatchMetrics | None = None
        self._has_ended = False
        self._withdrawn: set[str] = set()
        self._under_way: dict[str, RenderItem] = {}
        self._has_left_some = False
        self._due_s = self._gallery_due_s = 0.0
        self._trouble_since: float | None = None

    def begin(self, *, total: int, todo: int, stays: bool = False, **facts: object) -> None:
        """A batch of `total` videos is about to start, on a running Ray if any is `todo`, or may come while it stays.

        All goes to the ledger.
        """
        for done in self._known.unrecorded:
            self._ledger.add("done", **done.for_ledger())
        self._ledger.add("begin", total=total, todo=todo, **facts)
        if todo or stays:
            from jobs.driver.metrics import BatchMetrics

            self._metrics = BatchMetrics(todo, batch=str(self._storage))
        self.flush()

    def note(self, event: Event) -> None:
        """Take note of one event of the batch."""
        self._write_down(event)
        if self._metrics:
            self._metrics.note(event)
        if event.kind == "batch_stopping":
            self._end("stopped")

    def tick(self) -> None:
        """Make durable what is due. Raises InfrastructureError if the storage has refused it for too long."""
        if self._metrics:
            self._metrics.tick()
        now = time.monotonic()
        if now >= self._due_s:
            self._due_s = now + self._storage.flush_period_s
            self.flush()
        if now >= self._gallery_due_s and not self._trouble_since:
            self._draw(running=True)
            # A big batch's gallery takes its time; it must not take the driver's.
            self._gallery_due_s = time.monotonic() + max(GALLERY_S, 20 * (time.monotonic() - now))

    def take(self, items: Sequence[RenderItem]) -> None:
        """They have come to the batch, and are shown behind all others."""
        for item in items:
            self._index.setdefault(item.id, len(self._index))
            self._not_shown[item.id] = item
            self._withdrawn.discard(item.id)
        if self._metrics:
            self._metrics.grow(len(items))

    def drop(self, item: RenderItem) -> None:
        """It was withdrawn while it waited, for the first time or once more."""
        self._forget(item)
        self._forget_checkpoints(item)
        if self._metrics:
            self._metrics.grow(-1)

    def withdraw(self, item: RenderItem) -> None:
        """It was withdrawn too late: what is finished is removed, and what runs when it is."""
        self._withdrawn.add(item.id)
        if item.id not in self._under_way:
            self._remove_files(item)

    def flush(self) -> None:
        """Make the ledger durable; a storage that refuses gets another chance later."""
        try:
            self._ledger.flush()
        except OSError as error:
            self._endure(error)
            return
        self._trouble_since = None

    def close(self, how: str) -> None:
        """Write the last words, and the gallery as it stays."""
        self._end("unfinished" if how == "done" and self._has_left_some else how)
        for item in list(self._under_way.values()):
            self._show(item, status="waiting")
        self._draw(running=False)

    def _end(self, how: str) -> None:
        if how != "done":  # Whoever stops a job may kill it 3 s later.
            self._storage.hurry()
        if not self._has_ended:
            self._ledger.add("end", how=how)
        self._has_ended = True
        self.flush()

    def _endure(self, error: OSError) -> None:
        now = time.monotonic()
        if self._trouble_since is None:
            self._trouble_since = now
            logger.warning("%s cannot be written (%s); waiting for it", self._storage, error.strerror or error)
        elif now - self._trouble_since > LONGEST_TROUBLE_S:
            raise InfrastructureError(f"{self._storage} cannot be written: {error.strerror or error}") from error

    def _draw(self, *, running: bool) -> None:
        for item in list(self._not_shown.values()):  # Not at the start: gangs can start meanwhile.
            self._show(item, **_known_as(item, self._known))
        try:
            self._gallery.flush(running=running, words=self._words())
        except OSError as error:
            self._endure(error)

    def _write_down(self, event: Event) -> None:
        if isinstance(event, ItemEvent):
            self._write_down_item(event)
        elif isinstance(event, GangEvent) and event.kind in ("gang_ready", "gang_lost", "gang_closed"):
            held_s = None if event.held_s is None else round(event.held_s, 3)
            shared = event.is_shared or None
            self._ledger.add(event.kind, g=event.gang, error=event.error, hosts=event.hosts, held=held_s, shared=shared)

    def _write_down_item(self, event: ItemRunning | ItemDone | ItemFailed) -> None:
        item, about = event.item, About(n=event.attempts, g=event.gang)
        if event.kind in ("item_done", "item_failed"):
            self._under_way.pop(item.id, None)
        match event.kind:
            case "item_started":
                self._under_way[item.id] = item
                self._ledger.add("start", id=item.id, **about)
                self._show(item, status="running", attempts=event.attempts or 0, gang=event.gang)
            case "item_done":
                self._finish(item, Sidecar.model_validate(event.result), about)
            case "item_retried":
                if event.failure.policy.is_of_item:  # It may lie in what was kept of it.
                    self._forget_checkpoints(item)
                self._ledger.add("again", id=item.id, why=event.failure.value, error=event.error, **about)
                self._show(item, status="retrying", error=event.error, attempts=event.attempts, gang=event.gang)
            case "item_failed" if event.failure.policy.is_left:
                self._has_left_some = True
                self._ledger.add("left", id=item.id, why=event.failure.value, error=event.error, **about)
                self._show(item, status="waiting", error=event.error)
            case "item_failed":
                self._give_up(item, event, about)

    def _finish(self, item: RenderItem, sidecar: Sidecar, about: About) -> None:
        done = Done.of_sidecar(sidecar, item.name, self._stamp(item))
        self._ledger.add("done", **about, **done.for_ledger())
        self._show(item, **_shown(done, attempts=about["n"], gang=about["g"]))
        self._remove_videos(self._known.outdated.get(item.id, ()))
        if item.id in self._withdrawn:
            self._remove_files(item)

    def _remove_videos(self, names: Iterable[str]) -> None:
        try:
            for name in names:
                remove_video(self._storage, name)
        except OSError as error:
            self._endure(error)

    def _remove_files(self, item: RenderItem) -> None:
        self._remove_videos([item.name])
        self._forget(item)

    def _forget(self, item: RenderItem) -> None:
        """It does not belong to the batch any more, whatever becomes of it."""
        self._under_way.pop(item.id, None)
        self._not_shown.pop(item.id, None)
        self._gallery.remove(self._index[item.id])

    def _stamp(self, item: RenderItem) -> str | None:
        """Of its file, so that it is known again; without one the next driver compares its checksum."""
        try:
            stored = self._storage.stored(self._settings.file(item))
        except OSError as error:
            self._endure(error)
            return None
        return stored.stamp if stored else None

    def _forget_checkpoints(self, item: RenderItem) -> None:
        try:
            self._storage.remove(f"{CHECKPOINTS}/{item.id}")
        except OSError as error:
            self._endure(error)

    def _give_up(self, item: RenderItem, event: ItemFailed, about: About) -> None:
        self._forget_checkpoints(item)
        self._ledger.add("fail", id=item.id, why=event.failure.value, error=event.error, **about)
        self._show(item, status="failed", error=event.error, attempts=event.attempts, gang=event.gang)
        if event.traceback:
            try:
                self._storage.write(f"{FAILURES}/{item.id}.txt", event.traceback.encode())
            except OSError as error:
                self._endure(error)

    def _show(self, item: RenderItem, **facts: Unpack[Shown]) -> None:
        self._not_shown.pop(item.id, None)
        method = self._settings.recipe(item.method).name
        shown = item.model_dump(include=SHOWN)
        self._gallery.update(self._index[item.id], Entry(**shown, method=method, **facts))


def _known_as(item: RenderItem, known: Known) -> Shown:
    if item.id in known.finished:
        return _shown(known.finished[item.id])
    if item.id in known.given_up:
        return {"status": "failed", "error": known.given_up[item.id]}
    return {"status": "waiting"}


def _shown(done: Done, *, attempts: int = 0, gang: int | None = None) -> Shown:
    return {
        "status": "done",
        "video": done.file,
        "poster": done.has_poster,
        "seconds": done.seconds,
        "dense_steps": done.dense_steps,
        "sparse_steps": done.sparse_steps,
        "attempts": attempts,
        "gang": gang,
    }
