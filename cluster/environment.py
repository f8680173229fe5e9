"""Environment variables: what they say of Ray, and those for what is started meanwhile."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


def ray_address(given: str | None) -> str | None:
    """The cluster to attach to: as given, or as RAY_ADDRESS says; None for a Ray of one's own."""
    address = given or os.environ.get("RAY_ADDRESS")
    return None if address == "local" else address or None


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Sets variables for what is started in the block, but those that the user has set."""
    ours = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
