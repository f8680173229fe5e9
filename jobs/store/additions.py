"""What is added to a batch, or withdrawn again, while it is there: by anybody, in one order, on disk before it is told.

Each addition is a segment of the ledger of its own, `ledger/add-000001.jsonl`, and whoever comes first has the next
number. So nobody's lines are touched, none are lost, and whether there is a new one is one question to the storage.
"""

import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from jobs.errors import BadInput
from jobs.store.documents import read_as
from jobs.store.items import RenderItem
from jobs.store.ledger import FOLDER, OF_ADDITIONS, READERS, SEGMENT, lines_of
from jobs.store.ledger_lines import AddLine, WithdrawLine, line_text
from jobs.store.members import Members
from jobs.store.storage import Storage, Stored

PROMPTS = "prompts.jsonl"
"""The complete prompts of a batch, as its last driver knew them."""
NUMBER = re.compile(rf"{OF_ADDITIONS}(\d+){re.escape(SEGMENT)}")
SETTLE_S = 1.0
PATIENCE_S = 3.0

Change = AddLine | WithdrawLine

Ask = Callable[[Members], Sequence[RenderItem]]
"""What is to be added to a batch with these members; it may be asked again when others were quicker."""


class Additions:
    """What was added to the batch in a storage, and withdrawn from it; safe for threads.

    What a storage refuses is an OSError; what was to be added then may be there or not, and can be added again.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage, self._mutex = storage, threading.Lock()
        self._by = secrets.token_hex(4)
        self._last = 0  # the number of the last segment that was read
        self._has_listed = False
        self._changes: list[Change] = []
        self._num_told = 0
        self._added: dict[str, RenderItem] = {}
        self._withdrawn: dict[str, RenderItem] = {}
        self._keys: dict[str, list[RenderItem]] = {}
        self._members = Members()
        self._remembered: Stored | None = None

    def add(self, ask: Ask, *, key: str | None = None) -> list[RenderItem]:
        """Add items, and return them once they are on disk; those that the batch has exactly so are left as they are.

        With the `key` of an earlier request nothing is asked or added: it returns what that one has added. Raises
        BadInput for an id, or a name of a file, that another item has.
        """
        with self._mutex:
            while True:
                self._read_on()
                if key is not None and key in self._keys:
                    return list(self._keys[key])
                items = list(ask(self._present()))
                new = self._new(items)
                lines = [self._line("add", id=each.id, item=_described(each), key=key) for each in new]
                if not lines or self._append(lines):
                    return items

    def present(self) -> list[RenderItem]:
        """All items of the batch, those that its last driver knew and those that were added, as far as was read."""
        with self._mutex:
            return self._present().items

    def add_each(self, requests: Sequence[tuple[RenderItem, str | None]]) -> list[RenderItem]:
        """Add an item of each of several requests, all on disk at once, and return them once they are there.

        In the place of one with the key of an earlier request that comes which was added then. Raises as `add`.
        """
        with self._mutex:
            while True:
                self._read_on()
                self._present()
                before = [self._keys.get(key, [])[:1] if key is not None else [] for _, key in requests]
                wanted = [request for request, items in zip(requests, before, strict=True) if not items]
                new = {id(item) for item in self._new(item for item, _ in wanted)}
                lines = [
                    self._line("add", id=item.id, item=_described(item), key=key)
                    for item, key in wanted
                    if id(item) in new
                ]
                if not lines or self._append(lines):
                    return [(items or [item])[0] for (item, _), items in zip(requests, before, strict=True)]

    def withdraw(self, item_id: str) -> bool:
        """An item that was added is not to be rendered any more; False if there is no such item."""
        with self._mutex:
            while True:
                self._read_on()
                if item_id not in self._added:
                    return False
                if self._append([self._line("withdraw", id=item_id)]):
                    return True

    def refresh(self) -> None:
        """Read what others have added and withdrawn since: one question to the storage, if that is nothing."""
        with self._mutex:
            self._read_on()

    def fresh(self) -> list[Change]:
        """What was added and withdrawn, by anybody, since this was asked last; at first, all of it."""
        with self._mutex:
            self._read_on()
            fresh, self._num_told = self._changes[self._num_told :], len(self._changes)
            return fresh

    @property
    def items(self) -> list[RenderItem]:
        """What was added and not withdrawn, in order, as far as it was read."""
        with self._mutex:
            return list(self._added.values())

    @property
    def withdrawn(self) -> dict[str, RenderItem]:
        """By id what was added and then withdrawn, as far as it was read."""
        with self._mutex:
            return dict(self._withdrawn)

    def is_withdrawn(self, item: RenderItem) -> bool:
        """Whether exactly this item was added, and then withdrawn."""
        return self._withdrawn.get(item.id) == item

    def _new(self, items: Iterable[RenderItem]) -> list[RenderItem]:
        """Those that the batch does not have yet. Raises BadInput for what collides with others, of them or of it."""
        new: dict[str, RenderItem] = {}
        names: dict[str, str] = {}
        for item in items:
            there = new.get(item.id.casefold()) or self._members.get(item.id)
            if there == item:
                continue
            if there is not None:
                raise BadInput(f"id {item.id!r} is that of another item of the batch, {there.prompt[:60]!r}")
            other = self._members.same_file(item) or names.get(item.name.casefold())
            if other is not None:
                raise BadInput(f"items {other!r} and {item.id!r} would both be written to {item.name}")
            new[item.id.casefold()], names[item.name.casefold()] = item, item.id
        return list(new.values())

    def _line(self, kind: str, **facts: object) -> str:
        return line_text(kind, by=self._by, **facts)

    def _append(self, lines: Sequence[str]) -> bool:
        """Write the next segment; False if somebody else has done so first."""
        data = "".join(f"{line}\n" for line in lines).encode()
        assert len(lines_of(data)) == len(lines), "what is told must be read again"
        name = _name(self._last + 1)
        is_first = self._storage.create(name, data)
        if not is_first and not self._wait_for(name):  # Its writer was killed, and it is in everybody's way.
            self._last += 1
            return False
        if is_first and not self._storage.has_exclusive_create:
            time.sleep(SETTLE_S)  # Of two that found none the last one has it: both look once more.
        if self._storage.read(name) != data:  # It may be ours in any case: clients of object stores ask again.
            return False
        self._last += 1
        self._take(data)
        return True

    def _wait_for(self, name: str) -> bool:
        """Whether a segment that is being written is whole within a moment."""
        ends = time.monotonic() + PATIENCE_S
        while not (text := self._storage.read(name)).endswith(b"\n") and time.monotonic() < ends:
            time.sleep(PATIENCE_S / 20)
        return text.endswith(b"\n")

    def _read_on(self) -> None:
        if not self._has_listed:
            self._read_all()
        while (text := self._next()) is not None:
            self._last += 1
            self._take(text)

    def _next(self) -> bytes | None:
        """The next segment, if there is one; nothing of one that was never finished, and that others came after."""
        try:
            text = self._storage.read(_name(self._last + 1))
        except FileNotFoundError:
            return None
        if text.endswith(b"\n"):
            return text
        return b"" if self._storage.stored(_name(self._last + 2)) else None

    def _read_all(self) -> None:
        """The segments that are there, many at a time, up to one that is being written."""
        found = filter(None, map(NUMBER.fullmatch, self._storage.folder(FOLDER)))
        numbers = sorted(int(each[1]) for each in found)
        with ThreadPoolExecutor(READERS) as pool:
            texts = list(pool.map(self._storage.read, map(_name, numbers)))
        for number, text in zip(numbers, texts, strict=True):
            if text.endswith(b"\n"):
                self._last = number
                self._take(text)
        self._has_listed = True

    def _take(self, text: bytes) -> None:
        for line in lines_of(text):
            if line["e"] == "add":
                self._take_item(line["item"], line.get("key"))
            elif line["e"] == "withdraw":
                self._drop_item(line["id"])
            else:
                continue
            self._changes.append(line)

    def _take_item(self, item: RenderItem, key: str | None) -> None:
        self._added[item.id] = item
        self._withdrawn.pop(item.id, None)
        self._members.take(item)
        if key is not None:
            self._keys.setdefault(key, []).append(item)

    def _drop_item(self, item_id: str) -> None:
        if item := self._added.pop(item_id, None):
            self._withdrawn[item_id] = item
            self._members.drop(item_id)

    def _present(self) -> Members:
        """The items of the batch: those that its last driver knew, and those that were added."""
        if (stored := self._storage.stored(PROMPTS)) != self._remembered:
            members = Members()
            members.next_number = self._members.next_number
            for item in [*remembered_items(self._storage), *self._withdrawn.values(), *self._added.values()]:
                members.take(item)
                if self.is_withdrawn(item):
                    members.drop(item.id)
            self._members, self._remembered = members, stored
        return self._members


def remembered_items(storage: Storage) -> list[RenderItem]:
    """The prompts that the directory remembers, without lines that cannot be read; none without a list."""
    items = []
    with suppress(FileNotFoundError):
        for line in storage.read(PROMPTS).splitlines():
            with suppress(ValueError):
                items.append(read_as(RenderItem, line))
    return items


def _name(number: int) -> str:
    return f"{FOLDER}/{OF_ADDITIONS}{number:06d}{SEGMENT}"


def _described(item: RenderItem) -> dict[str, object]:
    return item.model_dump(exclude_none=True)
