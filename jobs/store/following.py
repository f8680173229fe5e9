"""What drivers write into a ledger, read as it comes: each line once, however long the ledger is."""

from jobs.store.ledger import FOLDER, SEGMENT, AnyLine, lines_of
from jobs.store.storage import Storage

PART_BYTES = 1 << 22


class Follower:
    """Reads the segments of drivers; what was added or withdrawn `Additions` tells.

    Drivers number their segments one after the other, and only the last of them grows, or, for a moment, the one
    before. So what is new is known by a question or two, whatever else lies in the ledger.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._num_read: dict[int, int] | None = None  # bytes of whole lines, by the segments that may have more

    def fresh(self) -> list[AnyLine]:
        """The next lines, without what is damaged: not all at once where they are many, none when all were read."""
        if self._num_read is None:
            stems = (name.removesuffix(SEGMENT) for name in self._storage.folder(FOLDER))
            self._num_read = dict.fromkeys(sorted(int(stem) for stem in stems if stem.isdecimal()), 0)
        last = max(self._num_read, default=0)
        for number in [*self._num_read, last + 1]:
            if lines := self._read(number, self._num_read):
                return lines
            if number < last - 1:
                del self._num_read[number]
        return []

    def _read(self, number: int, num_read: dict[int, int]) -> list[AnyLine]:
        name, start = f"{FOLDER}/{number:06d}{SEGMENT}", num_read.get(number, 0)
        if (stored := self._storage.stored(name)) is None:
            return []
        lines: list[AnyLine] = []
        while not lines and stored.num_bytes > start:
            part = self._storage.read_part(name, start, PART_BYTES)
            whole = part[: part.rfind(b"\n") + 1] or (part if len(part) == PART_BYTES else b"")
            if not whole:  # Its last line is being written.
                break
            start += len(whole)
            lines = lines_of(whole)
        num_read[number] = start
        return lines
