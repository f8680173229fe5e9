"""A storage that is a URL: an object store, or whatever else fsspec reaches."""

import math
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from jobs.errors import BadInput
from jobs.store.faults import StorageError, reason, writing
from jobs.store.storage import Storage, Stored, next_number

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

Info = dict[str, Any]  # what a file system says of a file: each kind has its own keys

SEGMENT_BYTES = 1 << 18  # nothing can be appended: a journal's last file is written anew each time


class RemoteStorage(Storage):
    """Files below a URL such as s3://bucket/videos. What fsspec's file systems answer has no types."""

    flush_period_s = 5.0
    has_exclusive_create = False

    def __init__(self, url: str) -> None:
        self.url = url

    def read(self, name: str) -> bytes:
        return self._ask("cat_file", name)

    def read_part(self, name: str, start: int, most: int) -> bytes:
        return self._ask("cat_file", name, start=start, end=start + most)

    def write(self, name: str, data: bytes) -> None:
        with self.trouble():  # A bucket that is gone is no file that is not there.
            self._ask("pipe_file", name, data)

    def create(self, name: str, data: bytes) -> bool:
        """Stores that know conditional writes decide it; with others the check comes before the write."""
        if self._ask("exists", name):
            return False
        try:
            self._ask("pipe_file", name, data, mode="create")
        except (TypeError, NotImplementedError):
            self._ask("pipe_file", name, data)
        except FileExistsError:
            return False
        return True

    def compare_and_swap(self, name: str, expected: bytes, data: bytes | None) -> bool:
        """Stores that know conditional writes decide it; with others, as where one removes, the check comes before."""
        stored = self.stored(name)
        if stored is None or not self._holds(name, expected):
            return False
        if data is None:
            self.remove(name)
            return True
        try:
            self._ask("pipe_file", name, data, IfMatch=stored.stamp)
        except (TypeError, NotImplementedError):
            self._ask("pipe_file", name, data)
        except StorageError:
            if self._holds(name, expected):
                raise
            return False
        return True

    def _holds(self, name: str, expected: bytes) -> bool:
        try:
            return self.read(name) == expected
        except FileNotFoundError:
            return False

    def publish(self, file: Path, name: str) -> None:
        with self.trouble():
            self._call("put_file", str(file), self.where(name))

    def stored(self, name: str) -> Stored | None:
        try:
            self._files.invalidate_cache()
            return _stored(self._ask("info", name))
        except FileNotFoundError:
            return None

    def folder(self, name: str) -> dict[str, Stored]:
        return {_last(info): _stored(info) for info in self._listed(name, "file")}

    def folders(self, name: str) -> set[str]:
        return {_last(info) for info in self._listed(name, "directory")}

    def remove(self, name: str) -> None:
        with suppress(FileNotFoundError):
            self._ask("rm", name, recursive=True)

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="resca-") as folder:
            copy = Path(folder) / PurePosixPath(name).name
            self._ask("get_file", name, str(copy))
            yield copy

    @contextmanager
    def workplace(self, name: str) -> Iterator[Path]:
        with writing("the folder for temporary files"):
            folder = tempfile.TemporaryDirectory(prefix="resca-", ignore_cleanup_errors=True)
        with folder as path:
            yield Path(path)

    def journal(self, folder: str) -> "RemoteJournal":
        return RemoteJournal(self, folder, next_number(self.folder(folder)))

    def log_path(self, name: str) -> None:
        return None

    def oldest_first(self, folder: str) -> list[str]:
        return []

    def check_writable(self, folders: Iterable[str] = ()) -> None:
        probe = ".resca-write-test"
        try:
            self._ask("pipe_file", probe, b"")
            self._ask("rm_file", probe)
        except OSError as error:
            raise BadInput(f"output directory {self} cannot be written: {reason(error.__cause__ or error)}") from error

    def sweep(self, folders: Iterable[str] = ()) -> None:
        pass

    @cached_property
    def _files(self) -> "AbstractFileSystem":
        import fsspec

        try:
            return fsspec.url_to_fs(self.url)[0]
        except (ImportError, ValueError) as error:
            raise BadInput(f"output directory {self.url} cannot be used: {error}") from error

    def _listed(self, name: str, kind: str) -> list[Info]:
        try:
            self._files.invalidate_cache()
            return [info for info in self._ask("ls", name, detail=True) if info["type"] == kind]
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _ask(self, verb: str, name: str, *args: object, **options: object) -> Any:
        """Let fsspec do something with a file of this storage."""
        return self._call(verb, self.where(name), *args, **options)

    def _call(self, verb: str, *args: object, **options: object) -> Any:
        limit = self._limit()
        try:
            return getattr(self._files, verb)(*args, **options, **limit)
        except (FileNotFoundError, FileExistsError, NotADirectoryError, TypeError, NotImplementedError):
            raise
        except Exception as error:  # Each storage has its own: no network, no permission, too many requests.
            if self.patience_s < math.inf:
                self.patience_s = 0.0
            raise StorageError(f"{self} cannot be used: {reason(error)}") from error

    def _limit(self) -> dict[str, float]:
        """What fsspec is told of patience. Raises StorageError if there is none left."""
        from fsspec.asyn import AsyncFileSystem

        if not self.patience_s:
            raise StorageError(f"{self} cannot be used: there was no answer to the last question")
        is_limited = self.patience_s < math.inf and isinstance(self._files, AsyncFileSystem)
        return {"timeout": self.patience_s} if is_limited else {}


class RemoteJournal:
    """Files of some size, of which the last is written as a whole each time."""

    def __init__(self, storage: RemoteStorage, folder: str, number: int) -> None:
        self._storage, self._folder, self._number, self._segment = storage, folder, number, b""

    def append(self, lines: bytes) -> None:
        self._storage.write(f"{self._folder}/{self._number:06d}.jsonl", self._segment + lines)
        self._segment += lines
        if len(self._segment) > SEGMENT_BYTES:
            self._segment, self._number = b"", self._number + 1


def _last(info: Info) -> str:
    return PurePosixPath(info["name"]).name


def _stored(info: Info) -> Stored:
    stamp = info.get("ETag") or info.get("etag") or info.get("LastModified") or info.get("created") or ""
    return Stored(num_bytes=info.get("size") or 0, stamp=str(stamp))
