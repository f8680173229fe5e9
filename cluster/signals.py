"""Signals while Ray starts, runs and ends: each ends the process in order, and a second one at once."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager

from cluster.stderr import give_stderr_back

# What a handler of Python's may take to get its turn: Ray's C++ hears neither of it nor of exceptions.
GRACE_S = 2.0
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextmanager
def handled(handlers: Mapping[signal.Signals, object]) -> Iterator[None]:
    """Handles signals so in the block; only the main thread can."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {signum: signal.getsignal(signum) for signum in handlers}
    try:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)  # pyright: ignore[reportArgumentType]
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)


def ending_in_order() -> AbstractContextManager[None]:
    """SIGTERM and SIGHUP in the block become SystemExit(128 + number); where SIGHUP is ignored (nohup), it stays so."""
    kept = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return handled(dict.fromkeys([signal.SIGTERM] if kept else [signal.SIGTERM, signal.SIGHUP], _exit_with_number))


@contextmanager
def deaf_to_hang_ups() -> Iterator[None]:
    """What is started in the block does not end with its terminal, but with this process."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def bounded(timeout_s: float | None, give_up: Callable[[], None]) -> Iterator[None]:
    """Calls `give_up` in another thread if the block takes longer; ends the process if a signal cannot end the block.

    Signals that the process ignores or that have no handler are left to the system.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    before = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=_watch, args=(reader, timeout_s, give_up), name="bounded", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        writer.close()


def _watch(reader: socket.socket, timeout_s: float | None, give_up: Callable[[], None]) -> None:
    """Reads the numbers of signals that have come, until the block has ended."""
    with reader:
        reader.settimeout(timeout_s)
        try:
            while (came := reader.recv(1)) and came[0] not in ENDING:
                pass
        except TimeoutError:
            give_up()
            return
        if came and not _has_ended(reader):
            give_stderr_back()
            print(f"Stopped by {signal.Signals(came[0]).name}.", file=sys.stderr, flush=True)
            os._exit(128 + came[0])


def _has_ended(reader: socket.socket) -> bool:
    """Whether the block ends in time and without a second signal."""
    reader.settimeout(GRACE_S)
    try:
        return not reader.recv(1)
    except TimeoutError:
        return False


def _exit_with_number(signum: int, frame: object) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # A terminal says it more than once; the first is being answered.
    raise SystemExit(128 + signum)


def take_note(signum: int, frame: object) -> None:
    """A handler for a process that is ending already."""
