"""Local files that are whole or absent, and whether they can be written."""

import errno
import hashlib
import os
import shutil
import tempfile
from pathlib import Path

from jobs.errors import BadInput

# How file systems say that they cannot sync a directory, or not for somebody who may not list it.
NOT_FOR_DIRECTORIES = {
    *(errno.EINVAL, errno.EBADF, errno.EISDIR, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP),
    *(errno.EACCES, errno.EPERM),
}
# How file systems say that a file can have one name alone.
WITHOUT_LINKS = {errno.EPERM, errno.EACCES, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EMLINK, errno.EINVAL}


def existing(path: Path) -> Path:
    """The path, or the lowest directory above it of which this user can see that it is there."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if os.path.exists(place))


def check_writable(path: Path, what: str) -> None:
    """Raises BadInput if the directory `path` neither is writable nor could be made. Leaves nothing behind."""
    _try(path, f"{what} {path}")


def check_file(path: Path, option: str) -> None:
    """Raises BadInput if the file that an option names cannot be written."""
    if os.path.isdir(path):
        raise BadInput(f"{option} {path} is a directory; name a file")
    if _is_stream(path):
        return
    _try(path.parent, f"{option} {path}", _partial(path).name)


def _try(folder: Path, what: str, name: str = "") -> None:
    """Make what would have to be made, below a place that is there."""
    whole = folder.absolute()
    place = next(part for part in (whole, *whole.parents) if os.path.lexists(part))  # a link to nowhere, too
    if not os.path.isdir(place):
        raise BadInput(f"{what} cannot be written: {place} is not a directory")
    missing = [part for part in whole.relative_to(place).parts if part != ".."]
    try:
        # Permission bits do not tell: root passes them, read-only and virtual file systems refuse in spite of them.
        with tempfile.TemporaryDirectory(prefix=".resca-", dir=place) as probe:
            Path(probe, *missing, name).mkdir(parents=True, exist_ok=True)
            Path(probe, "file").write_bytes(bytes(4096))  # A quota of bytes still allows directories.
    except OSError as error:
        raise BadInput(f"{what} cannot be written: {error.strerror} in {place}") from error


def write_text(path: Path, text: str) -> None:
    """Write a small file so that it is either whole or as it was; what is none, such as /dev/stdout, as it comes."""
    if _is_stream(path):
        path.write_text(text, encoding="utf-8")
        return
    partial = _partial(path)
    try:
        partial.write_text(text, encoding="utf-8")
        publish(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def publish(partial: Path, path: Path) -> None:
    """Give a complete file its name, once its bytes and then its name are on disk; it may come from another disk."""
    _flush(partial, os.O_RDWR)
    try:
        os.replace(partial, path)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _bring(partial, path)
    sync_directory(path.parent)


def publish_first(partial: Path, path: Path) -> bool:
    """Give a complete file a name that no file has, as `publish` does; False if there is one by now.

    Where a file can have one name alone, whoever looks in that moment sees a part of it.
    """
    _flush(partial, os.O_RDWR)
    try:
        os.link(partial, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in WITHOUT_LINKS:
            raise
        return _write_first(partial.read_bytes(), path)
    sync_directory(path.parent)
    return True


def _write_first(data: bytes, path: Path) -> bool:
    try:
        with path.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        return False
    sync_directory(path.parent)
    return True


def _bring(file: Path, path: Path) -> None:
    """Move a file to another file system, where it is whole or absent, too."""
    partial = _partial(path)
    try:
        shutil.copyfile(file, partial)
        _flush(partial, os.O_RDWR)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    file.unlink()


def sha256(path: Path) -> str:
    """The hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _is_stream(path: Path) -> bool:
    """Whether it is a pipe or device, or a name for what is open, such as /dev/stdout: nothing can take its place."""
    is_link_of_system = os.path.islink(path) and Path("/dev") in path.absolute().parents
    return os.path.exists(path) and (is_link_of_system or not os.path.isfile(path))


def _partial(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def sync_directory(path: Path) -> None:
    """See the names in a directory on disk, where the file system knows how to; some have no such thing."""
    try:
        _flush(path, os.O_RDONLY)
    except OSError as error:
        if error.errno not in NOT_FOR_DIRECTORIES:
            raise


def _flush(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
