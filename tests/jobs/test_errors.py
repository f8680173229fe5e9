"""What nobody foresaw is one sentence, and a stack in a file; what is stopped says so and leaves."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs.__main__ import COMMANDS, main

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(120)
ARGUMENTS = {
    **{command: ["p.txt", "--out", "out"] for command in ("render", "plan", "submit")},
    **{command: ["out"] for command in ("status", "logs", "retry", "cancel")},
    "add": ["out", "p.txt"],
    "withdraw": ["out", "0000"],
    "plan --gpus": ["8"],
    **{command: ["--out", "out"] for command in ("serve", "serve driver")},
    **{f"export {judge}": ["out", "--to", "to"] for judge in ("vbench", "drawbench", "fid")},
    "export geneval": ["out", "--to", "to", "--metadata", "evaluation_metadata.jsonl"],
    "tune": ["--target", "psnr=40", "--out", "plan.yaml"],
}


def fail(options: object) -> int:
    raise RuntimeError("no such \x1b[31mthing\nat all")


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch) -> Path:
    """Where stacks go; threads' exceptions are pytest's again afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    return tmp_path


def stack(told: str) -> str:
    """What the file says that the one sentence names."""
    assert re.match(r"resca: this was not foreseen: RuntimeError: no such \ufffd\[31mthing; please report it", told)
    assert len(told.splitlines()) == 1
    return Path(told.split()[-1]).read_text()


@pytest.mark.parametrize("command", COMMANDS)
def test_what_no_command_foresaw_is_one_sentence_and_a_file_with_its_stack(monkeypatch, capsys, command):
    monkeypatch.setitem(sys.modules, COMMANDS[command][1], SimpleNamespace(run=fail))
    assert main([*command.split(), *ARGUMENTS.get(command, [])]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "in fail" in stack(captured.err) and "at all" in stack(captured.err)


def test_nor_does_a_thread_print_its_stack(capsys):
    main(["--version"])
    capsys.readouterr()
    thread = threading.Thread(target=fail, args=[None])
    thread.start()
    thread.join()
    assert "in fail" in stack(capsys.readouterr().err)


def test_where_no_stack_can_be_written_the_sentence_still_comes(place, monkeypatch, capsys):
    monkeypatch.setattr(tempfile, "tempdir", str(place / "gone"))
    monkeypatch.setitem(sys.modules, "jobs.commands.status", SimpleNamespace(run=fail))
    assert main(["status", "out"]) == 1
    assert "its stack could not be written (No such file or directory)" in capsys.readouterr().err


# `resca` as it is run, and something for Python to tidy up, which can take long.
STOPPED = """
import atexit, sys
from cluster.signals import ending_in_order
from jobs.__main__ import main

atexit.register(print, "tidied up")
with ending_in_order():
    sys.exit(main())
"""


def hear() -> None:
    """As in a terminal: what has started these tests may ignore some signals."""
    for signum in (signal.SIGINT, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)


@pytest.mark.parametrize(
    ("signum", "code", "by"),
    [(signal.SIGINT, 130, "Ctrl-C"), (signal.SIGTERM, 143, "SIGTERM"), (signal.SIGHUP, 129, "the end of its terminal")],
)
def test_a_command_that_is_stopped_says_so_and_leaves_at_once(place, signum, code, by):
    """It waits for the text of a lock that is a pipe."""
    (place / "out").mkdir()
    os.mkfifo(place / "out" / "driver.lock")
    command = [sys.executable, "-c", STOPPED, "cancel", "out"]
    output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, preexec_fn=hear, **output)
    with (place / "out" / "driver.lock").open("wb"):  # waits for the other end
        process.send_signal(signum)
        assert process.communicate(timeout=60)[0] == f"resca: stopped by {by}\n"
    assert process.returncode == code
