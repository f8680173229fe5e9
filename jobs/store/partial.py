"""Files on their way to their names: what a process that was killed leaves of them, and who knows that it was."""

import hashlib
import os
import re
import secrets
import time
from contextlib import suppress
from pathlib import Path

OLD_S = 3600.0  # Nothing small is so long on its way; clocks of two machines may differ by some of it.
PARTIAL = re.compile(r"\..+\.(?P<space>[0-9a-f]{6})-(?P<pid>\d+)-[0-9a-f]{4}\.part", re.DOTALL)


def process_space() -> str:
    """The machine's boot and the process namespace in which a pid means something; if unseen, like no other."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot}/{os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"unknown-{secrets.token_hex(8)}"


def is_certainly_dead(pid: int, space: str) -> bool:
    """Whether a process of a space ran on this machine, and does not any more."""
    return space == process_space() and not _lives(pid)


def partial_of(path: Path) -> Path:
    """A hidden name beside a file, for its bytes until they are whole; no other writer has it."""
    return path.with_name(f".{path.name}.{_mark(process_space())}-{os.getpid()}-{secrets.token_hex(2)}.part")


def remove_abandoned(folder: Path) -> None:
    """Remove the partial files of processes that are certainly dead, and of any that are old; others stay."""
    with suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as files:
        for file in files:
            if (found := PARTIAL.fullmatch(file.name)) and _is_abandoned(Path(file), found):
                Path(file).unlink(missing_ok=True)


def _is_abandoned(path: Path, name: re.Match[str]) -> bool:
    if name["space"] == _mark(process_space()) and not _lives(int(name["pid"])):
        return True
    try:
        return time.time() - path.stat().st_mtime > OLD_S
    except FileNotFoundError:
        return False


def _lives(pid: int) -> bool:
    """Whether there is such a process in this one's space."""
    return Path(f"/proc/{pid}").exists()


def _mark(space: str) -> str:
    return hashlib.sha256(space.encode()).hexdigest()[:6]
