"""What can end a job, and the exit code that tells a caller what to do about it."""

DONE, BAD_INPUT, PARTIAL, INFRASTRUCTURE, INTERRUPTED, TERMINATED = 0, 2, 3, 33, 130, 143


class JobError(Exception):
    """Ends the job with one clear sentence and `exit_code`."""

    exit_code = 1


class BadInput(JobError, ValueError):
    """The user asked for something that cannot be done; running the same command again will not help."""

    exit_code = BAD_INPUT


class InfrastructureError(JobError, RuntimeError):
    """Machines, network or storage failed; running the same command again may help."""

    exit_code = INFRASTRUCTURE
