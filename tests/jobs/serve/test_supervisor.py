"""A process that is kept is started again, ends when it is told, and does not outlive who keeps it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.serve import supervisor
from jobs.serve.supervisor import Supervisor
from tests.jobs.survival.harness import ROOT, until

pytestmark = pytest.mark.timeout(60)
# Says that it lives, and says goodbye when it is told to end.
CHILD = """
import os, signal, sys, time
from jobs.serve.supervisor import end_with_input

def leave(*signal):
    print("goodbye", os.getpid(), file=log, flush=True)
    os._exit(0)

log = open(sys.argv[1], "a")
signal.signal(signal.SIGTERM, leave)
end_with_input()
print("hello", os.getpid(), file=log, flush=True)
time.sleep(600)
"""
PARENT = """
import sys, time
from jobs.serve.supervisor import Supervisor

Supervisor(sys.argv[1:]).start()
time.sleep(600)
"""


def told(log: Path, word: str) -> list[int]:
    lines = log.read_text().splitlines() if log.exists() else []
    return [int(line.split()[1]) for line in lines if line.startswith(word)]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(supervisor, "SHORTEST_PAUSE_S", 0.05)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    return [sys.executable, "-c", CHILD, str(tmp_path / "log")]


def test_one_that_is_killed_is_started_again_and_one_that_is_told_says_goodbye(command, tmp_path):
    log, keeper = tmp_path / "log", Supervisor(command)
    keeper.start()
    for number in range(3):
        until(lambda number=number: len(told(log, "hello")) == number + 1, "it to be at work")
        os.kill(told(log, "hello")[-1], signal.SIGKILL)
    until(lambda: len(told(log, "hello")) == 4, "it to be at work")
    assert keeper.is_at_work
    keeper.close()
    assert told(log, "goodbye") == told(log, "hello")[-1:] and not keeper.is_at_work


def test_one_whose_keeper_is_killed_ends_by_itself(command, tmp_path):
    log = tmp_path / "log"
    with subprocess.Popen([sys.executable, "-c", PARENT, *command]) as parent:
        until(lambda: told(log, "hello"), "it to be at work")
        parent.kill()
    until(lambda: told(log, "goodbye") == told(log, "hello"), "it to end")


def test_one_that_hears_nothing_is_killed(monkeypatch):
    monkeypatch.setattr(supervisor, "PATIENCE_S", 0.1)
    keeper = Supervisor([sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"])
    keeper.start()
    [pid] = until(lambda: keeper.said(0)[1], "it to be at work")
    keeper.close()
    assert not os.path.exists(f"/proc/{pid}")


def test_what_it_prints_is_told_once_and_of_much_the_end(monkeypatch):
    monkeypatch.setattr(supervisor, "PATIENCE_S", 0.1)
    talk = "import time; print(*range(3000), sep='\\n', flush=True); time.sleep(600)"
    keeper = Supervisor([sys.executable, "-c", talk])
    keeper.start()
    until(lambda: keeper.said(0)[0] == 3000, "it to be read")
    assert keeper.said(0)[1] == [str(number) for number in range(2000, 3000)]
    assert keeper.said(2998) == (3000, ["2998", "2999"]) and keeper.said(3000) == (3000, [])
    assert keeper.said(4000) == keeper.said(0)  # another's
    keeper.close()


def test_pauses_grow_while_it_ends_at_once(monkeypatch):
    monkeypatch.setattr(supervisor, "SHORTEST_PAUSE_S", 0.01)
    monkeypatch.setattr(supervisor, "LOOK_S", 0.01)
    starts: list[int] = []
    start = subprocess.Popen

    def counted(*words, **options):
        starts.append(len(starts))
        return start(*words, **options)

    monkeypatch.setattr(subprocess, "Popen", counted)
    keeper = Supervisor(["false"])
    keeper.start()
    until(lambda: len(starts) >= 5, "several starts")  # pauses of 0.01, 0.02, 0.04, 0.08 s
    keeper.close()
    assert len(starts) < 12
