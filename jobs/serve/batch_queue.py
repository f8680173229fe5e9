"""The queue of a batch as its output directory has it: nothing of it is kept anywhere else."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from jobs.serve.queue import Rendering, Submission
from jobs.store.additions import Additions, remembered_items
from jobs.store.following import Follower
from jobs.store.items import RenderItem
from jobs.store.known import Done, remove_video
from jobs.store.ledger_lines import AnyLine, DoneLine
from jobs.store.lock import read_holder
from jobs.store.storage import Storage


class BatchQueue:
    """See `Queue`. Additions come before what drivers write of them."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._additions, self._follower = Additions(storage), Follower(storage)

    def add(self, submissions: Sequence[Submission]) -> list[RenderItem]:
        return self._additions.add_each([(each.item, each.key) for each in submissions])

    def withdraw(self, item_id: str) -> bool:
        return self._additions.withdraw(item_id)

    def remembered(self) -> list[RenderItem]:
        return remembered_items(self._storage)

    def fresh(self) -> list[AnyLine]:
        return [*self._additions.fresh(), *self._follower.fresh()]

    def rendering(self) -> Rendering:
        holder = read_holder(self._storage)
        if holder is None or holder.is_certainly_dead():
            return Rendering()
        return Rendering(is_under_way=True, progress=holder.progress)

    @contextmanager
    def opened(self, name: str) -> Iterator[Path]:
        if self._storage.stored(name) is None:
            raise FileNotFoundError(name)
        with self._storage.fetched(name) as path:
            yield path

    def remove(self, done: DoneLine) -> None:
        if self._storage.stored(f"{done['name']}.json") or self._storage.stored(Done.of_ledger(done).file):
            remove_video(self._storage, done["name"])
