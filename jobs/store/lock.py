"""One driver an output directory: a lock that a dead driver does not hold for ever."""

import json
import os
import secrets
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace

from jobs.errors import BadInput, JobError
from jobs.store.documents import read_as
from jobs.store.partial import is_certainly_dead, process_space
from jobs.store.storage import Storage

NAME = "driver.lock"
BEAT_S = 5.0
# A lock that has not been written for so long is a dead driver's. No clocks are compared: whoever wants it watches it.
LEASE_S = 30.0
SILENT_S = 60.0  # after so long a driver may be dead, for all that people know
SETTLE_S = 1.0
ASIDE_S = 0.5


class LockLost(JobError):
    """The batch is not this driver's any more: another one took it for dead, or somebody removed the directory."""

    exit_code = 33


@dataclass(frozen=True, kw_only=True)
class Holder:
    """Who holds a lock, and how often it has said so."""

    token: str
    host: str
    pid: int
    space: str
    beats: int = 0
    written_s: float = 0.0  # since 1970, by the holder's clock; for people to read, nothing is decided by it
    left_s: float | None = None  # that it expects to be at work; for people, too
    progress: dict[str, float] = field(default_factory=dict)  # the part of each running item that is done
    is_ending: bool = False  # it may have looked for the last time for what was added

    def is_certainly_dead(self) -> bool:
        """Whether it ran on this machine, and does not any more."""
        return is_certainly_dead(self.pid, self.space)


class DriverLock:
    """Use as a context manager around all that a driver writes. Raises BadInput if another driver has the batch."""

    def __init__(self, storage: Storage, *, lease_s: float = LEASE_S) -> None:
        self._storage, self._lease_s = storage, lease_s
        self._me = Holder(
            token=secrets.token_hex(8),
            host=socket.gethostname(),
            pid=os.getpid(),
            space=process_space(),
            written_s=time.time(),
        )
        self.left_s: float | None = None  # that the driver expects to be at work
        self.progress: dict[str, float] = {}  # the part of each running item that is done
        self._beats, self._is_ending = 0, False
        self._writing = threading.Lock()
        self.took_over = False  # from a driver that was at work until now, or has died
        self._ended = threading.Event()
        self._loss: str | None = None
        self._thread = threading.Thread(target=self._keep, name="driver-lock", daemon=True)

    def __enter__(self) -> "DriverLock":
        mine = _dump(self._me)
        while not self._storage.create(NAME, mine):
            self.took_over = True
            dead = self._wait_for_death()
            # It may be another's by now, as this process may have been stopped for a while since it looked.
            if dead is not None and self._storage.compare_and_swap(NAME, dead, mine):
                break
        # Of two drivers that both found a dead one's lock, the one that wrote last has it: both look once more.
        if self.took_over or not self._storage.has_exclusive_create:
            time.sleep(SETTLE_S)
            self._check_mine()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None = None, *error: object) -> None:
        self._ended.set()
        if kind is not None:
            self._storage.hurry()
        if self._thread.is_alive():
            self._thread.join(min(BEAT_S, self._storage.patience_s))
        with suppress(OSError):  # It is a dead driver's then.
            text = _read(self._storage)
            if text is not None and _holder(text).token == self._me.token:
                self._storage.compare_and_swap(NAME, text, None)

    def say_ending(self, is_ending: bool) -> None:
        """From when this returns on, whoever adds something can see whether this driver will look for it."""
        self._is_ending = is_ending
        self._beat()

    def check(self) -> None:
        """Raises LockLost if the lock is another's by now, or gone."""
        if self._loss:
            raise LockLost(self._loss)

    def _wait_for_death(self) -> bytes | None:
        """The lock once its holder is dead, None if it is gone. Raises BadInput as soon as one shows that it lives."""
        first = _read(self._storage)
        ends = time.monotonic() + self._lease_s
        while first is not None and not _holder(first).is_certainly_dead() and time.monotonic() < ends:
            now = _read(self._storage)
            if now != first:
                raise BadInput(_taken(self._storage, _holder(now or first)))
            time.sleep(0.2)
        return first

    def _check_mine(self) -> None:
        if not self._is_mine():
            raise BadInput(_taken(self._storage, read_holder(self._storage) or self._me))

    def _is_mine(self) -> bool:
        """Looks again for a while: one who takes it for a dead driver's moves it aside, and then puts it back."""
        ends = time.monotonic() + ASIDE_S
        while not self._has_my_token():
            if time.monotonic() > ends:
                return False
            time.sleep(ASIDE_S / 10)
        return True

    def _has_my_token(self) -> bool:
        holder = read_holder(self._storage)
        return holder is not None and holder.token == self._me.token

    def _keep(self) -> None:
        while not self._loss and not self._ended.wait(min(BEAT_S, self._lease_s / 4)):
            with suppress(OSError):  # The storage may come back; if it does not, whatever else is written fails, too.
                self._beat()

    def _beat(self) -> None:
        """Write the lock anew, if it is still this driver's."""
        with self._writing:
            if not self._is_mine():
                self._loss = _lost(self._storage, read_holder(self._storage))
                return
            self._beats += 1
            self._storage.write(NAME, _dump(self._now()))

    def _now(self) -> Holder:
        of_now = {"beats": self._beats, "left_s": self.left_s, "progress": self.progress, "is_ending": self._is_ending}
        return replace(self._me, written_s=time.time(), **of_now)


def read_holder(storage: Storage) -> Holder | None:
    """Who holds the lock, or held it and died; None for nobody. A lock that is being written counts as someone's."""
    text = _read(storage)
    return None if text is None else _holder(text)


def _read(storage: Storage) -> bytes | None:
    try:
        return storage.read(NAME)
    except FileNotFoundError:
        return None


def _holder(text: bytes) -> Holder:
    try:
        return read_as(Holder, text)
    except ValueError:
        return Holder(token="", host="unknown", pid=0, space="")


def _dump(holder: Holder) -> bytes:
    return json.dumps(asdict(holder)).encode()


def _taken(storage: Storage, holder: Holder) -> str:
    return (
        f"another driver works on {storage} (process {holder.pid} on {holder.host}); "
        f"wait for it, stop it with resca cancel {storage}, or choose another --out"
    )


def _lost(storage: Storage, holder: Holder | None) -> str:
    if holder is None:
        return f"{storage}, or {NAME} in it, was removed while this driver was at work; run it again for the rest"
    return f"another driver has taken over {storage} (process {holder.pid} on {holder.host})"
