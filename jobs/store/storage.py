"""The storage of a batch as an interface: a directory or an object store, where a small file is whole or not there."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from jobs.store.faults import REFUSED, StorageError, Unreadable, reason, writing
from jobs.store.files import sha256

LAST_S = 1.0
LONGEST_LINE_BYTES = 1 << 24  # far more than any line that is written


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A file as it lies there: bytes, and a stamp that changes when the file is written again."""

    num_bytes: int
    stamp: str


class Journal(Protocol):
    """One writer's part of a record that only grows: lines in numbered files of a folder, after all that are there."""

    def append(self, lines: bytes) -> None:
        """Add whole lines, and see them on disk. Raises OSError; then none of them was added.

        What another exception (of a signal's handler) has interrupted may be there, and is replaced the next time.
        """


class Storage(ABC):
    """Files below one root, by names such as `videos/0000.mp4`, with '/' on every system.

    On local and shared file systems a file takes its name in one step, once its bytes are on disk; an object store
    does the same by itself. Whatever goes wrong with a storage is an OSError; what it refuses to write, and whatever an
    object store refuses, a StorageError.
    """

    url: str
    """The root: an absolute path or a URL."""
    flush_period_s: float
    """How often what only grows is made durable."""
    has_exclusive_create: bool
    """Whether of several who `create` one file at the same time exactly one gets True, for certain."""
    patience_s: float = math.inf
    """How long one request may take."""

    def __str__(self) -> str:
        return self.url

    def hurry(self) -> None:
        """The process is about to be killed: from now on what does not answer within a moment is given up."""
        self.patience_s = min(self.patience_s, LAST_S)

    def where(self, name: str) -> str:
        """The full path or URL of a file."""
        return f"{self.url.rstrip('/')}/{checked(name)}"

    def trouble(self, name: str = "") -> AbstractContextManager[None]:
        """What the storage refuses in the block, through no fault of who asks, becomes a StorageError.

        It names the folder of the file `name`, which may lie on another disk than the rest.
        """
        folder = name.rpartition("/")[0]
        return writing(self.where(folder) if folder else self)

    @contextmanager
    def reading(self, name: str) -> Iterator[None]:
        """What the system refuses in the block becomes a StorageError that names the file, but FileNotFoundError."""
        try:
            yield
        except StorageError:
            raise
        except (FileNotFoundError, NotADirectoryError) as error:
            raise FileNotFoundError(*error.args) from error
        except OSError as error:
            kind = Unreadable if error.errno in REFUSED else StorageError
            raise kind(f"{self.where(name)} cannot be read: {reason(error)}") from error

    def digest(self, name: str) -> str:
        """The sha256 of a file, which is read as a whole. Raises FileNotFoundError."""
        with self.reading(name), self.fetched(name) as path:
            return sha256(path)

    def lines(self, name: str) -> Iterator[bytes]:
        """The lines of a file of any size, with their ends; one of many megabytes comes in pieces.

        Raises FileNotFoundError.
        """
        with self.reading(name), self.fetched(name) as path, path.open("rb") as file:
            while line := file.readline(LONGEST_LINE_BYTES):
                yield line

    @abstractmethod
    def read(self, name: str) -> bytes:
        """The bytes of a file. Raises FileNotFoundError."""

    @abstractmethod
    def read_part(self, name: str, start: int, most: int) -> bytes:
        """At most so many bytes of a file, from a place before its end on. Raises FileNotFoundError."""

    @abstractmethod
    def write(self, name: str, data: bytes) -> None:
        """Write a small file so that it is either whole or as it was."""

    @abstractmethod
    def create(self, name: str, data: bytes) -> bool:
        """Write a small file if there is none of this name; of several who try, one gets True."""

    @abstractmethod
    def compare_and_swap(self, name: str, expected: bytes, data: bytes | None) -> bool:
        """Put `data` (None: nothing) in the place of a small file that still holds `expected`, and say whether it did.

        A file that somebody else has written meanwhile stays: of several who expect the same, one gets True.
        """

    @abstractmethod
    def publish(self, file: Path, name: str) -> None:
        """Give a complete local file its name here; on a local storage it is moved."""

    @abstractmethod
    def stored(self, name: str) -> Stored | None:
        """What lies there under this name, if anything does."""

    @abstractmethod
    def folder(self, name: str) -> dict[str, Stored]:
        """The files of a folder by their names in it; none if there is no such folder."""

    @abstractmethod
    def folders(self, name: str) -> set[str]:
        """The folders in a folder by their names in it; none if there is no such folder."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a file or a folder with all that is in it; nothing happens if there is none."""

    @abstractmethod
    def fetched(self, name: str) -> AbstractContextManager[Path]:
        """A local path with the file's content: the file itself, or a copy for the block."""

    @abstractmethod
    def workplace(self, name: str) -> AbstractContextManager[Path]:
        """A local folder for files on their way to `publish`; it is gone after the block.

        On a local storage it is the folder `name`, so that publishing is a renaming and what a killed process leaves
        is removed with it; for a URL it lies among the machine's temporary files.
        """

    @abstractmethod
    def journal(self, folder: str) -> Journal:
        """A new part of the record in a folder, such as `ledger/000003.jsonl`."""

    @abstractmethod
    def log_path(self, name: str) -> Path | None:
        """Where a log can be written line by line; None where files can only be written as a whole."""

    @abstractmethod
    def oldest_first(self, folder: str) -> list[str]:
        """The files of a folder by their age; none where their age is not known."""

    @abstractmethod
    def check_writable(self, folders: Iterable[str] = ()) -> None:
        """Raises BadInput if nothing can be written here, or in one of the folders that is there already.

        An object store has no folders. Leaves nothing behind.
        """

    @abstractmethod
    def sweep(self, folders: Iterable[str] = ()) -> None:
        """Remove what killed processes have left of files on their way to the root or to one of the folders.

        An object store has nothing of the kind. Raises OSError.
        """


def checked(name: str) -> str:
    """The name, which stays below the root. Raises ValueError for one that would not."""
    parts = name.split("/")
    if not all(parts) or any(part in (".", "..") or "\0" in part or "\\" in part for part in parts):
        raise ValueError(f"{name!r} is not a name below the output directory")
    return name


def next_number(names: Iterable[str]) -> int:
    """Of a journal's new file, after those that are there."""
    stems = [name.partition(".")[0] for name in names]
    return 1 + max((int(stem) for stem in stems if stem.isdigit()), default=0)
