"""Keeps a process at work: one that ends is started again, and it ends with whoever keeps it."""

import logging
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from typing import IO

logger = logging.getLogger(__name__)
SHORTEST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
LONG_S = 60.0  # one that was at work for so long is started again at once
PATIENCE_S = 30.0  # for its own end
LOOK_S = 0.2
MOST_LINES = 1000


class Supervisor:
    """Starts the process in a thread, again and again. Its standard input is a pipe, whose end it is to end with.

    So it does not outlive this process, however that ends. What it prints is kept for whoever asks.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="supervisor", daemon=True)
        self._lines: deque[str] = deque(maxlen=MOST_LINES)
        self._num_lines = 0
        self._mutex = threading.Lock()

    def start(self) -> None:
        self._thread.start()

    @property
    def is_at_work(self) -> bool:
        """Whether the process will be started again when it ends."""
        return self._thread.is_alive()

    def said(self, after: int) -> tuple[int, list[str]]:
        """How many lines it has printed, and those behind `after`, as far as they are kept.

        All of them, where there are fewer: they are of another supervisor's process.
        """
        with self._mutex:
            fresh = min(self._num_lines - (after if after <= self._num_lines else 0), len(self._lines))
            return self._num_lines, list(islice(self._lines, len(self._lines) - fresh, None))

    def close(self) -> None:
        """Lets the process end, and kills one that does not."""
        self._ended.set()
        self._thread.join()

    def _keep(self) -> None:
        pause_s = SHORTEST_PAUSE_S
        while not self._ended.is_set():
            started_s = time.monotonic()
            code = self._run()
            if time.monotonic() - started_s > LONG_S:
                pause_s = SHORTEST_PAUSE_S
            if not self._ended.wait(pause_s):
                self._say(f"the driver ended with {code}; starting it again")
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    def _run(self) -> int:
        pipe, into_it = subprocess.PIPE, subprocess.STDOUT
        with subprocess.Popen(
            self._command, stdin=pipe, stdout=pipe, stderr=into_it, text=True, errors="replace"
        ) as process:
            reader = threading.Thread(target=self._read, args=[process.stdout], daemon=True)
            reader.start()
            while (code := process.poll()) is None and not self._ended.wait(LOOK_S):
                pass
            code = _end(process) if code is None else code
            reader.join(PATIENCE_S)
            return code

    def _read(self, output: IO[str]) -> None:
        for line in output:
            self._say(line.rstrip("\n"))

    def _say(self, line: str) -> None:
        logger.info(line)
        with self._mutex:
            self._lines.append(line)
            self._num_lines += 1


def _end(process: "subprocess.Popen[str]") -> int:
    assert process.stdin is not None
    process.stdin.close()
    with suppress(subprocess.TimeoutExpired):
        return process.wait(PATIENCE_S)
    process.kill()
    return process.wait()


def end_with_input() -> None:
    """In a process that is kept: the end of its standard input, if that is a pipe, is to it as SIGTERM."""
    if stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
        threading.Thread(target=_wait_for_end, name="standard input", daemon=True).start()


def _wait_for_end() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
