"""The door itself: requests become lines of the ledger, and the ledger's lines become answers."""

import asyncio
import logging
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import BadInput
from jobs.models.family import Json
from jobs.serve.asset import Asset, asset_of
from jobs.serve.commit import GroupCommit
from jobs.serve.idempotency import Mark, mark_of
from jobs.serve.index import Index, Known, Order
from jobs.serve.queue import Queue, Rendering, Submission
from jobs.serve.refusal import Refusal, invalid, not_found, unavailable
from jobs.serve.video import Asked, Video, describe
from jobs.store.items import RenderItem

logger = logging.getLogger(__name__)
Check = Callable[[str, Json], RenderItem]
"""Makes an item of an id and the fields of a request. Raises BadInput."""
SILENT_S = 30.0  # without an answer of the storage the door is not ready
SEEDS = 2**31  # of requests that name none
RETRY_S = 10  # after which a full queue may have room


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What is served, how many videos may wait or run, and how often the ledger is looked at."""

    model: str
    fps: int
    most_left: int
    period_s: float


class Door:
    """Between HTTP and a batch. All that it knows it has read from storage. To be used on one event loop."""

    def __init__(self, queue: Queue, check: Check, terms: Terms) -> None:
        self._queue, self._check, self._terms = queue, check, terms
        self._index, self._rendering = Index(), Rendering()
        self._commit = GroupCommit(self._write)
        self._turn = asyncio.Lock()  # Lines are taken into account in the order in which they were read.
        self._under_way: dict[str, tuple[Mark, asyncio.Task[Video]]] = {}
        self._coming: set[str] = set()  # ids that are accepted, and not yet in the index
        self._following: asyncio.Task[None] | None = None
        self._read_s: float | None = None  # when the ledger was last read to its end

    @asynccontextmanager
    async def following(self) -> AsyncIterator[None]:
        """The ledger is followed in the block."""
        self._following = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            self._following.cancel()

    @property
    def is_broken(self) -> bool:
        """Whether it has stopped to follow the ledger, through something that nobody foresaw."""
        return self._following is not None and self._following.done()

    @property
    def is_ready(self) -> bool:
        """Whether the ledger has been read, and the storage still answers."""
        return self._read_s is not None and time.monotonic() - self._read_s < SILENT_S

    @property
    def is_rendering(self) -> bool:
        """Whether a driver is at work."""
        return self._rendering.is_under_way

    @property
    def num_left(self) -> int:
        """Videos that wait or run."""
        return self._index.num_left + len(self._coming)

    async def create(self, fields: Json, request_name: str | None = None) -> Video:
        """Add a video, or answer as the first time a request that has the name of an earlier one. Raises Refusal."""
        item, mark = self._checked(fields), mark_of(request_name, fields)
        if self._read_s is None:
            raise unavailable("the ledger is still being read; try again in a moment")
        if mark is None:
            return await self._accept(Submission(item))
        if known := self._index.marked(mark.name):
            mark.check(known[0])
            return self._described(self._known(known[1]))
        if coming := self._under_way.get(mark.name):
            mark.check(coming[0])
        else:  # It goes on if who asked first goes away: another may be waiting for it.
            coming = mark, asyncio.create_task(self._accept(Submission(item, mark.key)))
            self._under_way[mark.name] = coming
            coming[1].add_done_callback(lambda task: self._under_way.pop(mark.name))
        return await asyncio.shield(coming[1])

    def retrieve(self, item_id: str) -> Video:
        """How a video stands. Raises Refusal."""
        return self._described(self._known(item_id))

    def page(self, *, after: str | None, limit: int, order: Order) -> tuple[list[Video], bool]:
        """Videos by age, behind the one called `after`; and whether there are more. Raises Refusal."""
        try:
            known, has_more = self._index.page(after=after, limit=limit, order=order)
        except KeyError:
            raise invalid(f"there is no video {after!r} to go on after", param="after") from None
        return [self._described(each) for each in known], has_more

    async def delete(self, item_id: str) -> None:
        """Withdraw a video that waits; remove one that is finished. Raises Refusal."""
        known = self._known(item_id)
        if known.state and known.state.status == "running":
            message = f"video {item_id} is being rendered; delete it when it is completed"
            raise Refusal(status=409, message=message, code="video_in_progress")
        async with self._turn:
            with _storage():
                is_withdrawn = await asyncio.to_thread(self._queue.withdraw, item_id)
            await self._read_news()
        if not is_withdrawn:
            raise invalid(f"video {item_id} belongs to the batch's prompt file; only what was added can be deleted")
        await self._clear()

    def content(self, item_id: str, variant: str) -> tuple[Asset, AbstractContextManager[Path]]:
        """A file of a finished video: which, and itself, or a copy of it, for a block. Raises Refusal."""
        state = self._known(item_id).state
        if state and state.status == "failed":
            raise not_found(f"video {item_id} has failed: {state.error}", code="video_failed")
        if state is None or state.done is None:
            raise not_found(f"video {item_id} is not ready yet; look at its status", code="video_not_ready")
        asset = asset_of(state.done, variant)
        return asset, self._queue.opened(asset.name)

    def _checked(self, fields: Json) -> RenderItem:
        model = fields.get("model", self._terms.model)
        if model != self._terms.model:
            raise invalid(f"this service has the model {self._terms.model}, not {model!r}", param="model")
        try:
            return self._check(f"video_{secrets.token_hex(12)}", {"seed": secrets.randbelow(SEEDS), **fields})
        except BadInput as error:
            raise invalid(str(error)) from error

    def _known(self, item_id: str) -> Known:
        known = self._index.get(item_id)
        if known is None:
            raise not_found(f"there is no video {item_id!r}")
        return known

    def _described(self, known: Known) -> Video:
        progress = self._rendering.progress.get(known.asked.item.id, 0.0)
        return describe(known.asked, known.state, model=self._terms.model, fps=self._terms.fps, progress=progress)

    async def _accept(self, submission: Submission) -> Video:
        if self.num_left >= self._terms.most_left:
            message = f"{self.num_left} videos are waiting, which is all that this service takes; try again later"
            raise Refusal(status=429, message=message, code="queue_full", headers={"Retry-After": str(RETRY_S)})
        self._coming.add(submission.item.id)
        try:
            with _storage():
                item = await self._commit.add(submission)
        finally:
            self._coming.discard(submission.item.id)
        # What was written could perhaps not be read back: it counts all the same.
        return self._described(self._index.get(item.id) or Known(Asked(item, time.time()), None))

    async def _write(self, submissions: Sequence[Submission]) -> list[RenderItem]:
        async with self._turn:
            items = await asyncio.to_thread(self._queue.add, submissions)
            await self._read_news()
        self._coming.difference_update(each.item.id for each in submissions)
        return items

    async def _read_news(self) -> None:
        """Take into account what was just written; a storage that refuses is asked again soon."""
        with suppress(OSError):
            self._index.read(await asyncio.to_thread(self._queue.fresh))

    async def _follow(self) -> None:
        while True:
            try:
                await self._read_on()
                await self._clear()
            except OSError as error:
                logger.warning("the batch cannot be read (%s); trying again", error)
            await asyncio.sleep(self._terms.period_s)

    async def _read_on(self) -> None:
        async with self._turn:
            while lines := await asyncio.to_thread(self._queue.fresh):
                self._index.read(lines)
            self._rendering = await asyncio.to_thread(self._queue.rendering)
            if self._read_s is None:
                self._index.remember(await asyncio.to_thread(self._queue.remembered))
        self._read_s = time.monotonic()

    async def _clear(self) -> None:
        """Remove what is withdrawn and lies there all the same; what the storage refuses, the next time."""
        for done in self._index.leftovers():
            with suppress(OSError):
                await asyncio.to_thread(self._queue.remove, done)
                self._index.forget(done["id"])


@contextmanager
def _storage() -> Iterator[None]:
    """What the storage refuses in the block is no fault of who asks."""
    try:
        yield
    except OSError as error:
        logger.warning("the batch cannot be written: %s", error)
        raise unavailable("the storage of this service does not answer; try again later") from error
