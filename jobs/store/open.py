"""Which storage an output directory is, by how it was given."""

import os
import re
from pathlib import Path

from jobs.errors import BadInput
from jobs.store.local import LocalStorage
from jobs.store.remote import RemoteStorage
from jobs.store.storage import Storage

ONE_SLASH = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):/(?!/)(?P<rest>.*)", re.DOTALL)


def open_storage(root: str | Path) -> Storage:
    """A directory for a path or file:// URL, an object store for any other URL; nothing is made or looked for yet.

    Raises BadInput for what is neither.
    """
    directory = directory_of(root)
    return LocalStorage(directory) if directory else RemoteStorage(str(root))


def directory_of(root: str | Path) -> Path | None:
    """The directory that a path or a file:// URL names; None for any other URL. Raises BadInput for what is neither."""
    path = str(root).removeprefix("file://")
    if not path.strip():
        raise BadInput("the output directory has no name; give a path or a URL such as s3://bucket/videos")
    if cut := ONE_SLASH.fullmatch(path):
        url = f"{cut['scheme']}://{'/' if cut['scheme'] == 'file' else ''}{cut['rest']}"
        raise BadInput(f"{path} is no URL, as one slash is missing: {url}; a directory of that name is ./{path}")
    return None if "://" in path else Path(home_expanded(path)).absolute()


def home_expanded(path: str) -> str:
    """The path with its leading ~ or ~user replaced, as shells do. Raises BadInput if nobody knows that home."""
    whole = os.path.expanduser(path)
    if whole.startswith("~"):
        raise BadInput(f"the home directory in {path} is not known; a file or directory of that name is ./{path}")
    return whole
