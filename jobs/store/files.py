"""Local files that are whole or absent, and whether they can be written."""

import hashlib
import os
import tempfile
from pathlib import Path

from jobs.errors import BadInput


def check_writable(path: Path, what: str) -> None:
    """Raises BadInput if the directory `path` neither is writable nor could be made. Leaves nothing behind."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise BadInput(f"{what} {path} cannot be written: {place} is not a directory")
    try:
        # Permission bits do not tell: root passes them, read-only and virtual file systems refuse in spite of them.
        tempfile.TemporaryDirectory(prefix=".resca-", dir=place).cleanup()
    except OSError as error:
        raise BadInput(f"{what} {path} cannot be written: {error.strerror} in {place}") from error


def check_file(path: Path, option: str) -> None:
    """Raises BadInput if the file that an option names cannot be written."""
    if path.is_dir():
        raise BadInput(f"{option} {path} is a directory; name a file")
    check_writable(path.parent, f"the directory of {option}")


def write_text(path: Path, text: str) -> None:
    """Write a small file so that it is either whole or as it was."""
    partial = path.with_name(f".{path.name}.part")
    try:
        partial.write_text(text, encoding="utf-8")
        publish(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def publish(partial: Path, path: Path) -> None:
    """Give a complete file its name, once its bytes and then its name are on disk."""
    _flush(partial, os.O_RDWR)
    os.replace(partial, path)
    _flush(path.parent, os.O_RDONLY)


def sha256(path: Path) -> str:
    """The hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _flush(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
