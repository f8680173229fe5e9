"""The storage of a batch: a directory or any fsspec URL, where a small file is written whole or not at all."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from cluster.failure import FailureKind
from jobs.errors import BadInput, InfrastructureError
from jobs.store.files import check_writable, publish, sha256

# A storage that is full, broken or gone: waiting or people may help; it is neither the video's fault nor the gang's.
TROUBLE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE),
    *(errno.ENOTCONN, errno.EHOSTDOWN, errno.ETIMEDOUT),
}


class StorageError(InfrastructureError, OSError):
    """The output directory cannot be written at the moment."""

    failure_kind: ClassVar[FailureKind] = FailureKind.STORAGE


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A file as it lies there: bytes, and a stamp that changes when the file is written again."""

    num_bytes: int
    stamp: str


class Storage:
    """Files below one root, by names such as `videos/0000.mp4`, with '/' on every system.

    On local and shared file systems a file takes its name in one step, once its bytes are on disk; an object store
    does the same by itself. Whatever goes wrong with a storage is an OSError, with an object store a StorageError.
    """

    def __init__(self, root: str | Path) -> None:
        self.url = _absolute(str(root))
        self.directory = None if "://" in self.url else Path(self.url)

    def __str__(self) -> str:
        return self.url

    def where(self, name: str) -> str:
        """The full path or URL of a file."""
        return f"{self.url.rstrip('/')}/{_safe(name)}"

    @contextmanager
    def trouble(self) -> Iterator[None]:
        """What the storage refuses in the block, through no fault of who asks, becomes a StorageError."""
        try:
            yield
        except StorageError:
            raise
        except OSError as error:
            if error.errno in TROUBLE:
                raise StorageError(f"{self} cannot be written: {_reason(error)}") from error
            raise

    def read(self, name: str) -> bytes:
        """The bytes of a file. Raises FileNotFoundError."""
        if self.directory:
            try:
                return self._path(name).read_bytes()
            except NotADirectoryError as error:
                raise FileNotFoundError(*error.args) from error
        return self._ask("cat_file", name)

    def write(self, name: str, data: bytes) -> None:
        """Write a small file so that it is either whole or as it was."""
        if not self.directory:
            self._ask("pipe_file", name, data)
            return
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f".{path.name}.{os.getpid()}.part")
        try:
            partial.write_bytes(data)
            publish(partial, path)
        finally:
            partial.unlink(missing_ok=True)

    def create(self, name: str, data: bytes) -> bool:
        """Write a small file if there is none of this name; of several who try, one gets True."""
        if not self.directory:
            return self._create_remote(name, data)
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with path.open("xb") as file:
                file.write(data)
        except FileExistsError:
            return False
        return True

    def publish(self, file: Path, name: str) -> None:
        """Give a complete local file its name here; on a local storage it is moved."""
        if not self.directory:
            self._call("put_file", str(file), self.where(name))
            return
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        publish(file, path)

    def stored(self, name: str) -> Stored | None:
        """What lies there under this name, if anything does."""
        try:
            return _stored(self._path(name).stat()) if self.directory else _remote_stored(self._info(name))
        except FileNotFoundError:
            return None

    def folder(self, name: str) -> dict[str, Stored]:
        """The files of a folder by their names in it; none if there is no such folder."""
        try:
            if self.directory:
                return dict(_scan(self._path(name)))
            return {_last(info): _remote_stored(info) for info in self._listed(name) if info["type"] == "file"}
        except (FileNotFoundError, NotADirectoryError):
            return {}

    def folders(self, name: str) -> set[str]:
        """The folders in a folder by their names in it; none if there is no such folder."""
        try:
            if self.directory:
                with os.scandir(self._path(name)) as files:
                    return {file.name for file in files if file.is_dir(follow_symlinks=False)}
            return {_last(info) for info in self._listed(name) if info["type"] == "directory"}
        except (FileNotFoundError, NotADirectoryError):
            return set()

    def remove(self, name: str) -> None:
        """Remove a file or a folder with all that is in it; nothing happens if there is none."""
        if not self.directory:
            with suppress(FileNotFoundError):
                self._ask("rm", name, recursive=True)
            return
        path = self._path(name)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def digest(self, name: str) -> str:
        """The sha256 of a file, which is read as a whole. Raises FileNotFoundError."""
        with self.fetched(name) as path:
            return sha256(path)

    @contextmanager
    def fetched(self, name: str) -> Iterator[Path]:
        """A local path with the file's content: the file itself, or a copy for the block."""
        if self.directory:
            yield self._path(name)
            return
        with tempfile.TemporaryDirectory(prefix="resca-") as folder:
            copy = Path(folder) / PurePosixPath(name).name
            self._ask("get_file", name, str(copy))
            yield copy

    @contextmanager
    def workplace(self, name: str) -> Iterator[Path]:
        """A local folder for files on their way to `publish`; it is gone after the block.

        Here it lies in the storage itself, so that publishing is a renaming; for a URL among the machine's temporary
        files. What a killed process leaves in it is removed with the folder `name`.
        """
        if not self.directory:
            with tempfile.TemporaryDirectory(prefix="resca-") as folder:
                yield Path(folder)
            return
        path = self._path(name)
        path.mkdir(parents=True, exist_ok=True)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    def check_writable(self) -> None:
        """Raises BadInput if nothing can be written here. Leaves nothing behind."""
        if self.directory:
            check_writable(self.directory, "output directory")
            return
        probe = ".resca-write-test"
        try:
            self._ask("pipe_file", probe, b"")
            self._ask("rm_file", probe)
        except OSError as error:
            raise BadInput(f"output directory {self} cannot be written: {_reason(error.__cause__ or error)}") from error

    def append(self, name: str, text: bytes) -> None:
        """Add to a file of a local storage, and see it on disk. A URL has no such thing."""
        assert self.directory is not None
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            whole = file.tell()
            try:
                while text:  # An unbuffered file may take less than it is given.
                    text = text[file.write(text) :]
                os.fsync(file.fileno())
            except OSError:  # A disk that got full may have taken half a line, which would spoil the next.
                file.truncate(whole)
                raise

    @cached_property
    def _remote(self) -> Any:
        import fsspec

        try:
            return fsspec.url_to_fs(self.url)[0]
        except (ImportError, ValueError) as error:
            raise BadInput(f"output directory {self.url} cannot be used: {error}") from error

    def _ask(self, verb: str, name: str, *args: Any, **options: Any) -> Any:
        """Let fsspec do something with a file of this storage."""
        return self._call(verb, self.where(name), *args, **options)

    def _call(self, verb: str, *args: Any, **options: Any) -> Any:
        try:
            return getattr(self._remote, verb)(*args, **options)
        except (FileNotFoundError, FileExistsError, NotADirectoryError, TypeError, NotImplementedError):
            raise
        except Exception as error:  # Each storage has its own: no network, no permission, too many requests.
            raise StorageError(f"{self} cannot be used: {_reason(error)}") from error

    def _info(self, name: str) -> Any:
        self._remote.invalidate_cache()
        return self._ask("info", name)

    def _listed(self, name: str) -> list[dict[str, Any]]:
        self._remote.invalidate_cache()
        return self._ask("ls", name, detail=True)

    def _create_remote(self, name: str, data: bytes) -> bool:
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

    def _path(self, name: str) -> Path:
        assert self.directory is not None
        return self.directory / _safe(name)


def _absolute(root: str) -> str:
    root = root.removeprefix("file://")
    return root if "://" in root else str(Path(root).absolute())


def _safe(name: str) -> str:
    """The name, which stays below the root. Raises ValueError for one that would not."""
    parts = name.split("/")
    if not all(parts) or any(part in (".", "..") or "\0" in part or "\\" in part for part in parts):
        raise ValueError(f"{name!r} is not a name below the output directory")
    return name


def _stored(status: os.stat_result) -> Stored:
    return Stored(num_bytes=status.st_size, stamp=str(status.st_mtime_ns))


def _scan(folder: Path) -> Iterator[tuple[str, Stored]]:
    """The files of a folder, but those that are gone, or have got their final name, before they are looked at."""
    with os.scandir(folder) as files:
        for file in files:
            with suppress(FileNotFoundError):
                if file.is_file():
                    yield file.name, _stored(file.stat())


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _last(info: dict[str, Any]) -> str:
    return PurePosixPath(info["name"]).name


def _remote_stored(info: dict[str, Any]) -> Stored:
    stamp = info.get("ETag") or info.get("etag") or info.get("LastModified") or info.get("created") or ""
    return Stored(num_bytes=info.get("size") or 0, stamp=str(stamp))
