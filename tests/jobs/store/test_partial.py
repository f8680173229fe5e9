"""What a process that is killed leaves of a file on its way, and who removes it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.store.open import open_storage
from jobs.store.partial import OLD_S, partial_of

pytestmark = pytest.mark.timeout(60)
ELSEWHERE = ".a.json.000000-1-0000.part"  # by no process space of this machine, but once in 16 million boots
KILLED = """
import os, sys
from jobs.store.open import open_storage
os.replace = os.rename = os.link = lambda *names, **options: os.kill(os.getpid(), 9)
storage = open_storage(sys.argv[1])
"""


def kill_in(do: str, out: Path) -> list[Path]:
    """What is left of a process that was killed before a file got its name."""
    command = [sys.executable, "-c", f"{KILLED}storage.{do}", str(out)]
    assert subprocess.run(command, cwd=Path(__file__).parents[3], timeout=60).returncode == -9
    return list(out.rglob("*.part"))


@pytest.mark.parametrize(
    "do", ["write('driver.lock', b'me')", "create('ledger/1', b'a')", "write('videos/a.json', b'b')"]
)
def test_the_next_sweep_removes_what_a_killed_process_left(tmp_path: Path, do: str):
    left = kill_in(do, tmp_path)
    assert len(left) == 1 and left[0].read_bytes()
    open_storage(tmp_path).sweep(("videos", "ledger", "nowhere"))
    assert not list(tmp_path.rglob("*.part"))


def test_what_others_are_at_stays(tmp_path: Path):
    mine, other_machines = partial_of(tmp_path / "a.json"), tmp_path / ELSEWHERE
    users = [tmp_path / "a.part", tmp_path / ".a.json.part", tmp_path / "a.json"]
    for path in (mine, other_machines, *users):
        path.write_bytes(b"x")
    open_storage(tmp_path).sweep()
    assert all(path.exists() for path in (mine, other_machines, *users))


def test_what_another_machine_has_left_goes_when_it_is_old(tmp_path: Path):
    left = tmp_path / ELSEWHERE
    left.write_bytes(b"x")
    open_storage(tmp_path).sweep()
    assert left.exists()
    then = left.stat().st_mtime - 2 * OLD_S
    os.utime(left, (then, then))
    open_storage(tmp_path).sweep()
    assert not left.exists()
