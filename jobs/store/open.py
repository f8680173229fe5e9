"""Which storage an output directory is, by how it was given."""

import os
import re
from pathlib import Path

from jobs.errors import BadInput
from jobs.store.local import LocalStorage
from jobs.store.remote import RemoteStorage
from jobs.store.storage import Storage

ONE_SLASH = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]+):/(?!/)(?P<rest>.*)", re.DOTALL)
# Of what nobody calls a directory.
NO_SLASH = re.compile(r"(?P<scheme>s3a?|gc?s|az|abfss?|hdfs|https?|file):(?!/)(?P<rest>.*)", re.DOTALL | re.IGNORECASE)
SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?=://)")


def open_storage(root: str | Path) -> Storage:
    """A directory for a path or file:// URL, an object store for any other URL; nothing is made or looked for yet.

    Raises BadInput for what is neither.
    """
    directory = directory_of(root)
    return LocalStorage(directory) if directory else RemoteStorage(with_lower_scheme(str(root)))


def directory_of(root: str | Path) -> Path | None:
    """The directory that a path or a file:// URL names; None for any other URL. Raises BadInput for what is neither."""
    path = with_lower_scheme(str(root)).removeprefix("file://")
    if not path.strip():
        raise BadInput("the output directory has no name; give a path or a URL such as s3://bucket/videos")
    if cut := ONE_SLASH.fullmatch(path) or NO_SLASH.fullmatch(path):
        scheme, rest = cut["scheme"].lower(), cut["rest"].replace("\\", "/").lstrip("/")
        url = f"{scheme}://{'/' if scheme == 'file' else ''}{rest}"
        missing = "one slash is" if cut.re is ONE_SLASH else "two slashes are"
        raise BadInput(f"{path} is no URL, as {missing} missing: {url}; a directory of that name is ./{path}")
    return None if "://" in path else Path(home_expanded(path)).absolute()


def with_lower_scheme(url: str) -> str:
    """S3://bucket is s3://bucket (RFC 3986, section 3.1)."""
    return SCHEME.sub(lambda scheme: scheme[0].lower(), url, count=1) if SCHEME.match(url) else url


def home_expanded(path: str) -> str:
    """The path with its leading ~ or ~user replaced, as shells do. Raises BadInput if nobody knows that home."""
    whole = os.path.expanduser(path)
    if whole.startswith("~"):
        raise BadInput(f"the home directory in {path} is not known; a file or directory of that name is ./{path}")
    return whole
