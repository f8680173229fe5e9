"""What nobody foresaw: one sentence, and the stack in a file."""

import re
import sys
import tempfile
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from jobs.__main__ import COMMANDS, main

pytestmark = pytest.mark.timeout(120)
ARGUMENTS = {
    **{command: ["p.txt", "--out", "out"] for command in ("render", "plan", "submit")},
    **{command: ["out"] for command in ("status", "retry", "cancel")},
    "export vbench": ["out", "--to", "to"],
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
