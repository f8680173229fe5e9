"""The token that Ray asks of everyone who uses a cluster: where it lies, and that nobody else reads it."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cluster.environment import environment

MODE = "RAY_AUTH_MODE"
PLACES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


def default_file() -> Path | None:
    """Where Ray looks if the environment names no token; None for a user without a home directory."""
    home = os.path.expanduser("~")
    return Path(home) / ".ray" / "auth_token" if os.path.isabs(home) else None


def keep_private() -> None:
    """Take the token away from other users: Ray itself writes it for everyone to read."""
    file = default_file()
    with suppress(OSError):  # There is none, or it is not ours.
        if file and file.stat().st_mode & 0o077:
            file.chmod(0o600)


@contextmanager
def own_token() -> Iterator[None]:
    """A token for the Ray that is started in the block, known to its processes alone; or that of the environment."""
    from ray._raylet import AuthenticationTokenLoader, Config  # pyright: ignore[reportAttributeAccessIssue]

    names = [name for name in PLACES if os.environ.get(name)]
    mode = os.environ.get(MODE)
    try:
        with environment({} if names else {"RAY_AUTH_TOKEN": secrets.token_hex(32)}):
            AuthenticationTokenLoader.instance().reset_cache()
            yield
    finally:
        if mode is None:  # Ray has set it.
            os.environ.pop(MODE, None)
            Config.initialize("")
        AuthenticationTokenLoader.instance().reset_cache()
