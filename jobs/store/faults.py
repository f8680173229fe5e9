"""Whose fault it is that bytes cannot be written: the storage's, the machine's, or that of the one file's name."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

from cluster.failure import FailureKind
from jobs.errors import BAD_INPUT, InfrastructureError

# By what the system says. Whatever is not here is the storage's: it is full, broken, gone or somebody else's, and
# waiting or people may help.
FAULTS = {
    # A directory lies where this file belongs, or its file system takes no such name.
    **dict.fromkeys((errno.EISDIR, errno.ENAMETOOLONG), FailureKind.ITEM),
    # This process can have no more memory, files, processes or pipes; another machine may have them.
    **dict.fromkeys(
        (errno.ENOMEM, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.EPIPE, errno.ENOEXEC, errno.E2BIG),
        FailureKind.INFRASTRUCTURE,
    ),
}


# What is not read for good: it is not for this user, has no name that the system takes, or is no file.
REFUSED = {errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR}
# What was asked of an object store, in the messages of its client.
QUERY = re.compile(r"(?<=[^\s\"'?])\?[\w-]+=[^\s\"']*")


class StorageError(InfrastructureError, OSError):
    """The output directory cannot be written at the moment."""

    failure_kind: ClassVar[FailureKind] = FailureKind.STORAGE


class Unreadable(StorageError):
    """What lies there cannot be read, now or later."""

    exit_code = BAD_INPUT


class MachineError(InfrastructureError, OSError):
    """This machine lacks what makes a video: an ffmpeg with H.264, memory, files or processes."""


ERRORS = {FailureKind.STORAGE: StorageError, FailureKind.INFRASTRUCTURE: MachineError}


@contextmanager
def writing(what: object) -> Iterator[None]:
    """What the system refuses in the block becomes a StorageError or a MachineError, which says what it refused.

    What is of the file's own name, and an OSError without a number, which is one of ours, are raised as they are.
    """
    try:
        yield
    except (StorageError, MachineError):
        raise
    except OSError as error:
        kind = fault_of(error)
        if kind not in ERRORS:
            raise
        refusal = ERRORS[kind](f"{what} cannot be written: {reason(error)}")
        refusal.strerror = reason(error)
        raise refusal from error


def fault_of(error: OSError) -> FailureKind:
    """How an error counts that came where bytes are written."""
    is_ours = error.errno is None and type(error) is OSError
    return FailureKind.ITEM if is_ours else FAULTS.get(error.errno or 0, FailureKind.STORAGE)


def reason(error: BaseException) -> str:
    """What went wrong, in a few words."""
    said = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return QUERY.sub("", said)
