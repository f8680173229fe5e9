"""Standard error, also of what is not written by Python: held back for a while, and given back before the end."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

_held: list[int] = []  # descriptors of what is the process's standard error otherwise


@contextmanager
def stderr_into(file: IO[bytes]) -> Iterator[None]:
    """What is written to it in the block goes to a file."""
    _held.append(os.dup(2))
    os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        give_stderr_back()
        os.close(_held.pop())


def give_stderr_back() -> None:
    """For the last words of a process of which another thread hangs in such a block."""
    if _held:
        os.dup2(_held[-1], 2)
