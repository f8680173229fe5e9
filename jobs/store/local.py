"""A storage that is a directory, on a local or shared file system."""

import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from jobs.store.faults import Unreadable
from jobs.store.files import check_writable, publish, publish_first
from jobs.store.partial import partial_of, remove_abandoned
from jobs.store.storage import Storage, Stored, checked, next_number

Arguments = ParamSpec("Arguments")
Value = TypeVar("Value")


def _in_trouble(
    method: Callable[Concatenate["LocalStorage", Arguments], Value],
) -> Callable[Concatenate["LocalStorage", Arguments], Value]:
    """A method of which what the system refuses is the storage's trouble; its first text is the name of a file."""

    @wraps(method)
    def in_trouble(storage: "LocalStorage", *args: Arguments.args, **options: Arguments.kwargs) -> Value:
        with storage.trouble(next(each for each in args if isinstance(each, str))):
            return method(storage, *args, **options)

    return in_trouble


class LocalStorage(Storage):
    """A directory, which need not be there yet."""

    flush_period_s = 1.0
    has_exclusive_create = True

    def __init__(self, directory: Path) -> None:
        self._directory = directory.absolute()
        self.url = str(self._directory)

    def read(self, name: str) -> bytes:
        with self.reading(name):
            return self._path(name).read_bytes()

    def read_part(self, name: str, start: int, most: int) -> bytes:
        with self.reading(name), self._path(name).open("rb") as file:
            file.seek(start)
            return file.read(most)

    @_in_trouble
    def write(self, name: str, data: bytes) -> None:
        path = self._path_to_write(name)
        partial = partial_of(path)
        try:
            partial.write_bytes(data)
            publish(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    @_in_trouble
    def create(self, name: str, data: bytes) -> bool:
        path = self._path_to_write(name)
        partial = partial_of(path)
        try:
            partial.write_bytes(data)
            return publish_first(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    @_in_trouble
    def compare_and_swap(self, name: str, expected: bytes, data: bytes | None) -> bool:
        """Nothing compares and removes in one step, so the file is moved aside first, and put back if it is another."""
        path = self._path(name)
        aside = partial_of(path)
        try:
            if self.read(name) != expected:
                return False
            os.rename(path, aside)
        except FileNotFoundError:
            return False
        if (found := aside.read_bytes()) != expected:
            self.create(name, found)
        aside.unlink()
        return found == expected and (data is None or self.create(name, data))

    @_in_trouble
    def publish(self, file: Path, name: str) -> None:
        publish(file, self._path_to_write(name))

    @_in_trouble
    def append(self, name: str, text: bytes, after: int) -> None:
        """Add to the first `after` bytes of a file, and see it on disk. Raises OSError; then nothing was added."""
        with self._path_to_write(name).open("ab", buffering=0) as file:
            whole = min(after, file.tell())
            try:
                file.truncate(whole)  # What a signal has interrupted comes again.
                while text:  # An unbuffered file may take less than it is given.
                    text = text[file.write(text) :]
                os.fsync(file.fileno())
            except OSError:  # A disk that got full may have taken half a line, which would spoil the next.
                file.truncate(whole)
                raise

    def stored(self, name: str) -> Stored | None:
        try:
            with self.reading(name):
                return _stored(self._path(name).stat())
        except FileNotFoundError:
            return None

    def folder(self, name: str) -> dict[str, Stored]:
        try:
            with self.reading(name):
                return dict(_scan(self._path(name)))
        except FileNotFoundError as error:
            if self._path(name).is_file():
                raise Unreadable(f"{self.where(name)} is a file where a directory belongs; move it away") from error
            return {}

    def folders(self, name: str) -> set[str]:
        try:
            with self.reading(name), os.scandir(self._path(name)) as files:
                return {file.name for file in files if file.is_dir(follow_symlinks=False)}
        except FileNotFoundError:
            return set()

    @_in_trouble
    def remove(self, name: str) -> None:
        path = self._path(name)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        yield self._path(name)

    @contextmanager
    def workplace(self, name: str) -> Iterator[Path]:
        path = self._path(name)
        with self.trouble(name):
            path.mkdir(parents=True, exist_ok=True)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def journal(self, folder: str) -> "LocalJournal":
        return LocalJournal(self, f"{folder}/{next_number(self.folder(folder)):06d}.jsonl")

    def log_path(self, name: str) -> Path:
        return self._path(name)

    def oldest_first(self, folder: str) -> list[str]:
        files = self.folder(folder)
        return sorted(files, key=lambda name: int(files[name].stamp))

    def check_writable(self, folders: Iterable[str] = ()) -> None:
        check_writable(self._directory, "output directory")
        for folder in map(self._path, folders):
            if os.path.lexists(folder):
                check_writable(folder, "output directory")

    def sweep(self, folders: Iterable[str] = ()) -> None:
        for folder in (self._directory, *map(self._path, folders)):
            remove_abandoned(folder)

    def _path(self, name: str) -> Path:
        return self._directory / checked(name)

    def _path_to_write(self, name: str) -> Path:
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


class LocalJournal:
    """One file, which grows."""

    def __init__(self, storage: LocalStorage, name: str) -> None:
        self._storage, self._name, self._num_bytes = storage, name, 0

    def append(self, lines: bytes) -> None:
        self._storage.append(self._name, lines, after=self._num_bytes)
        self._num_bytes += len(lines)


def _stored(status: os.stat_result) -> Stored:
    return Stored(num_bytes=status.st_size, stamp=str(status.st_mtime_ns))


def _scan(folder: Path) -> Iterator[tuple[str, Stored]]:
    """The files of a folder, but those that are gone, or have got their final name, before they are looked at.

    A link that leads nowhere, in a circle, or where this user may not go, is none.
    """
    with os.scandir(folder) as files:
        for file in files:
            try:
                if file.is_file():
                    yield file.name, _stored(file.stat())
            except OSError as error:
                if not (file.is_symlink() or isinstance(error, FileNotFoundError)):
                    raise
