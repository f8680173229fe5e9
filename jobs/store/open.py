"""Which storage an output directory is, by how it was given."""

from pathlib import Path

from jobs.store.local import LocalStorage
from jobs.store.remote import RemoteStorage
from jobs.store.storage import Storage


def open_storage(root: str | Path) -> Storage:
    """A directory for a path or file:// URL, an object store for any other URL; nothing is made or looked for yet."""
    directory = directory_of(root)
    return LocalStorage(directory) if directory else RemoteStorage(str(root))


def directory_of(root: str | Path) -> Path | None:
    """The directory that a path or a file:// URL names; None for any other URL."""
    path = str(root).removeprefix("file://")
    return None if "://" in path else Path(path).absolute()
