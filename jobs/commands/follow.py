"""Following a Ray job from elsewhere: what it says, to its end, over connections that break."""

import asyncio
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from jobs.driver.progress import is_line
from jobs.errors import InfrastructureError

if TYPE_CHECKING:
    from ray.job_submission import JobDetails, JobSubmissionClient

# Tunnels break and laptops sleep; the job goes on meanwhile.
PATIENCE_S = 300.0
PAUSE_S = 2.0
LEFT_ALONE = "the job is not followed any more, but goes on; how to follow and stop it stands above"


def print_on(text: str) -> None:
    """What a job says, as it comes."""
    print(text, end="", flush=True)


class Split:
    """What a job says, whose standard output and error are one: lines of progress here to standard output alone."""

    def __init__(self) -> None:
        self._begun = ""  # of a line

    def __call__(self, text: str) -> None:
        *lines, self._begun = f"{self._begun}{text}".split("\n")
        for line in lines:
            print(line, file=sys.stdout if is_line(line) else sys.stderr, flush=True)


def follow(
    client: "JobSubmissionClient",
    submission: str,
    say: Callable[[str], None] = print_on,
    *,
    patience_s: float = PATIENCE_S,
) -> "JobDetails":
    """Say what the job says until it ends; returns Ray's `JobDetails`. Ctrl-C leaves the job running.

    Raises InfrastructureError after `patience_s` without a connection.
    """
    tail, lost_s = Tail(client, submission, say), time.monotonic()
    while True:
        try:
            asyncio.run(tail.show())
            return _ended(client, submission)
        except (OSError, RuntimeError) as error:
            if tail.has_answered:  # Until now, however quiet the job was.
                lost_s = time.monotonic()
            if time.monotonic() - lost_s > patience_s:
                raise InfrastructureError(f"{LEFT_ALONE} ({error})") from error
            time.sleep(PAUSE_S)
        except KeyboardInterrupt:
            print(f"\n{LEFT_ALONE}", file=sys.stderr)
            raise


class Tail:
    """A job's log, which Ray sends from its beginning each time it is asked: what was printed before is passed over."""

    def __init__(self, client: "JobSubmissionClient", submission: str, say: Callable[[str], None] = print_on) -> None:
        self._client, self._submission, self._say, self._num_printed = client, submission, say, 0
        self.has_answered = False  # on the last connection

    async def show(self) -> None:
        """Say the log as it grows, until the job ends. Raises OSError or RuntimeError if the connection breaks."""
        num_read, self.has_answered = 0, False
        async for text in self._client.tail_job_logs(self._submission):
            self.has_answered = True
            fresh = text[max(0, self._num_printed - num_read) :]
            num_read += len(text)
            self._num_printed += len(fresh)
            self._say(fresh)


def _ended(client: "JobSubmissionClient", submission: str) -> "JobDetails":
    """The log may end a moment before the job does."""
    info = client.get_job_info(submission)
    while not info.status.is_terminal():
        time.sleep(0.5)
        info = client.get_job_info(submission)
    return info
