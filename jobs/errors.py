"""What can end a job, and the exit code that tells a caller what to do about it."""

import os
import tempfile
import traceback
from typing import ClassVar

from cluster.failure import FailureKind

UNFORESEEN = 1
DONE, BAD_INPUT, PARTIAL, INFRASTRUCTURE = 0, 2, 3, 33
INTERRUPTED, TERMINATED, HUNG_UP = 130, 143, 129


class JobError(Exception):
    """Ends the job with one clear sentence and `exit_code`; on a rank it counts as `failure_kind` says."""

    exit_code = 1
    failure_kind: ClassVar[FailureKind] = FailureKind.ITEM


class BadInput(JobError, ValueError):
    """The user asked for something that cannot be done; running the same command again will not help."""

    exit_code = BAD_INPUT


class InfrastructureError(JobError, RuntimeError):
    """Machines, network or storage failed; running the same command again may help."""

    exit_code = INFRASTRUCTURE
    failure_kind: ClassVar[FailureKind] = FailureKind.INFRASTRUCTURE


def unforeseen(error: BaseException) -> str:
    """One sentence on an exception that nobody expected; its stack goes to a file, which is named."""
    lines = str(error).strip().splitlines()
    what = f"{type(error).__name__}: {lines[0][:300]}" if lines else type(error).__name__
    return f"this was not foreseen: {what}; {_where_its_stack_is(error)}"


def _where_its_stack_is(error: BaseException) -> str:
    try:
        descriptor, path = tempfile.mkstemp(prefix="resca-", suffix=".txt")
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(traceback.format_exception(error))
    except OSError as refused:
        return f"its stack could not be written ({refused.strerror or refused})"
    return f"please report it with its stack, which is in {path}"
