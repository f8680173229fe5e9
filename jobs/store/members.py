"""The items of a batch by their ids, their numbers and the names of their files, so that nothing collides with them."""

import re

from jobs.store.items import RenderItem

NUMBERED = re.compile(r"(\d{1,7})(-\d+)?")  # an id that was given by number, of several copies, too


def number_of(item_id: str) -> int | None:
    """The number that an id was given by, also of several copies; None of another id."""
    found = NUMBERED.fullmatch(item_id)
    return int(found[1]) if found else None


class Members:
    """The items of a batch, as somebody sees them who adds to it."""

    def __init__(self) -> None:
        self._items: dict[str, RenderItem] = {}
        self._ids: dict[str, str] = {}  # by the names of their files
        self.next_number = 0
        """Above all ids that are numbers, also of what was withdrawn."""

    @property
    def items(self) -> list[RenderItem]:
        """All of them."""
        return list(self._items.values())

    def get(self, item_id: str) -> RenderItem | None:
        """The item of this id, or of one that differs in the case of letters alone."""
        return self._items.get(item_id.casefold())

    def same_file(self, item: RenderItem) -> str | None:
        """The id of another item whose files have the names of this one's."""
        other = self._ids.get(item.name.casefold())
        return None if other == item.id else other

    def take(self, item: RenderItem) -> None:
        """It belongs to the batch from now on, in the place of one of the same id."""
        self._items[item.id.casefold()] = item
        self._ids[item.name.casefold()] = item.id
        if (number := number_of(item.id)) is not None:
            self.next_number = max(self.next_number, number + 1)

    def drop(self, item_id: str) -> None:
        """It does not belong to the batch any more; the names of its files stay taken, as they may be written yet."""
        self._items.pop(item_id.casefold(), None)
