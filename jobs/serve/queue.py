"""What the door needs of a batch: that additions are durable, what is new, and finished files."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from jobs.store.items import RenderItem
from jobs.store.ledger_lines import AnyLine, DoneLine


@dataclass(frozen=True, slots=True)
class Submission:
    """A video to be added, and what the request calls itself, so that it can be made again."""

    item: RenderItem
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Rendering:
    """Whether a driver is at work, and which part of each running video is done."""

    is_under_way: bool = False
    progress: dict[str, float] = field(default_factory=dict)


class Queue(Protocol):
    """All may block, and raise OSError for what the storage refuses; none is called by two threads at once.

    The last two are, by any number of threads.
    """

    def add(self, submissions: Sequence[Submission]) -> list[RenderItem]:
        """Make each part of the batch, or give the item that an earlier one of its key has added.

        Durable when it returns, and none of them if it raises.
        """
        ...

    def withdraw(self, item_id: str) -> bool:
        """It is not to be rendered any more; False for one that was not added but belongs to a prompt file."""
        ...

    def remembered(self) -> list[RenderItem]:
        """The items that the last driver knew."""
        ...

    def fresh(self) -> list[AnyLine]:
        """The next lines of the ledger, not all at once where they are many; none when all were read."""
        ...

    def rendering(self) -> Rendering:
        """Who renders now, and how far it is."""
        ...

    def opened(self, name: str) -> AbstractContextManager[Path]:
        """A file of the batch, or a copy of it, for a block. Raises FileNotFoundError."""
        ...

    def remove(self, done: DoneLine) -> None:
        """Remove a finished video with what lies beside it, if it is there."""
        ...
