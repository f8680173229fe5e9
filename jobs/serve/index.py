"""Every video that was asked for, and how it stands, as far as the ledger has been read."""

import time
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from jobs.serve.idempotency import Mark
from jobs.serve.video import Asked
from jobs.store.items import RenderItem
from jobs.store.ledger import BatchState, ItemState
from jobs.store.ledger_lines import AddLine, AnyLine, DoneLine

Order = Literal["asc", "desc"]
LEFT = ("waiting", "running", "retrying")


@dataclass(frozen=True, slots=True)
class Known:
    """A video, and what the ledger says of it; None if it says nothing."""

    asked: Asked
    state: ItemState | None


class Index:
    """Follows the lines of a ledger. A line may come twice, and one on a video before that which adds it."""

    def __init__(self) -> None:
        self._state = BatchState()
        self._asked: dict[str, Asked] = {}
        self._by_age: list[tuple[float, str]] = []
        self._marks: dict[str, tuple[Mark, str]] = {}
        self._left: set[str] = set()
        self._leftovers: dict[str, DoneLine] = {}
        self._first_s = time.time()

    @property
    def num_left(self) -> int:
        """Videos that are still to be rendered."""
        return len(self._left)

    def read(self, lines: Iterable[AnyLine]) -> None:
        """Take the next lines of the ledger into account."""
        for line in lines:
            self._state.read(line)
            self._first_s = min(self._first_s, line["t"])
            match line["e"]:
                case "add":
                    self._add(line)
                case "withdraw":
                    self._remove(line["id"])
                case "done" if line["id"] in self._state.withdrawn:
                    self._leftovers[line["id"]] = line
                case "begin":  # What was given up may be taken up again.
                    self._left = {item_id for item_id in self._asked if self._is_left(item_id)}
                case "start" | "again" | "done" | "fail" | "left":
                    self._count(line["id"])

    def remember(self, items: Iterable[RenderItem]) -> None:
        """Videos that the batch began with, of which no line tells what was asked; as old as its first line."""
        for item in items:
            if item.id not in self._asked and item.id not in self._state.withdrawn:
                self._put(Asked(item, self._first_s))

    def get(self, item_id: str) -> Known | None:
        """None for a video that was never asked for, or withdrawn."""
        asked = self._asked.get(item_id)
        return Known(asked, self._state.items.get(item_id)) if asked else None

    def marked(self, name: str) -> tuple[Mark, str] | None:
        """The request of this name and the id that it was answered with, also if that video is withdrawn by now."""
        return self._marks.get(name)

    def leftovers(self) -> list[DoneLine]:
        """Finished videos that are withdrawn, but for those that are forgotten."""
        return list(self._leftovers.values())

    def forget(self, item_id: str) -> None:
        """There is nothing left of it."""
        self._leftovers.pop(item_id, None)

    def page(self, *, after: str | None, limit: int, order: Order) -> tuple[list[Known], bool]:
        """At most `limit` videos behind the one called `after`, by age; and whether there are more.

        Raises KeyError if there is none of that name.
        """
        place = (self._asked[after].created_s, after) if after else None
        if order == "asc":
            start = bisect_right(self._by_age, place) if place else 0
            found = self._by_age[start : start + limit + 1]
        else:
            end = bisect_left(self._by_age, place) if place else len(self._by_age)
            found = self._by_age[max(0, end - limit - 1) : end][::-1]
        videos = [Known(self._asked[item_id], self._state.items.get(item_id)) for _, item_id in found]
        return videos[:limit], len(videos) > limit

    def _add(self, line: AddLine) -> None:
        self._leftovers.pop(line["id"], None)  # It is wanted again.
        if key := line.get("key"):
            mark = Mark.of_ledger(key)
            self._marks.setdefault(mark.name, (mark, line["id"]))
        if line["id"] not in self._asked:
            self._put(Asked(line["item"], line["t"]))

    def _put(self, asked: Asked) -> None:
        self._asked[asked.item.id] = asked
        insort(self._by_age, (asked.created_s, asked.item.id))
        self._count(asked.item.id)

    def _remove(self, item_id: str) -> None:
        self._left.discard(item_id)
        if (state := self._state.items.pop(item_id, None)) and state.done:
            self._leftovers[item_id] = state.done
        if asked := self._asked.pop(item_id, None):
            del self._by_age[bisect_left(self._by_age, (asked.created_s, item_id))]

    def _count(self, item_id: str) -> None:
        if self._is_left(item_id):
            self._left.add(item_id)
        else:
            self._left.discard(item_id)

    def _is_left(self, item_id: str) -> bool:
        state = self._state.items.get(item_id)
        return item_id in self._asked and (state is None or state.status in LEFT)
