"""`resca logs`: what is said of one video, and what the driver has logged."""

import json
import logging
from pathlib import Path

import pytest

from jobs.__main__ import main
from jobs.store.ledger import Ledger
from jobs.store.logs import attempt_log, driver_log
from jobs.store.open import open_storage
from tests.jobs.store.example import done_line

LOGGER = logging.getLogger("jobs.rank.session")


@pytest.fixture
def out(tmp_path) -> Path:
    """A batch whose first video failed once, and the second twice; a third and a fourth have not been begun."""
    storage = open_storage(tmp_path)
    ledger = Ledger(storage)
    ledger.add("begin", total=4)
    ledger.add("start", id="a", n=1, g=0)
    ledger.add("again", id="a", n=1, g=0, why="infrastructure", error="the gang was lost")
    ledger.add("done", **done_line("a", n=2, g=1))
    ledger.add("start", id="a.1", n=1, g=0)
    ledger.add("fail", id="a.1", n=1, g=0, why="item", error="ValueError: no such colour")
    ledger.flush()
    with attempt_log(storage, tmp_path, "a", 2, host="node-7"):
        LOGGER.info("denoised", extra={"facts": {"dense": 9}})
    with attempt_log(storage, tmp_path, "a.1", 1, host="node-7"):
        try:
            raise ValueError("no such colour")
        except ValueError:
            LOGGER.exception("failed")
    storage.write("failures/a.1.txt", b"Traceback:\n  in paint\n")
    line = '{"id": "%s", "prompt": "red", "seed": 0, "height": 16, "width": 16, "num_frames": 5, "steps": 4}\n'
    storage.write("prompts.jsonl", "".join(line % name for name in ("a", "a.1", "b", "c")).encode())
    return tmp_path


def logs(*arguments: object) -> int:
    return main(["logs", *map(str, arguments)])


def test_a_video_is_told_of_in_the_order_of_time(out, capsys):
    assert logs(out, "a") == 0
    told = [line.split(" ", 2)[2] for line in capsys.readouterr().out.splitlines()]
    assert told == [
        "attempt 1, gang 0: begun",
        "attempt 1, gang 0: to be tried again: the gang was lost",
        "attempt 2, gang 1: done in 2.5 s",
        "info jobs.rank.session: denoised, host node-7, dense 9",
    ]


def test_a_failure_is_told_with_its_traceback_and_that_which_was_kept(out, capsys):
    assert logs(out, "a.1") == 0
    told = capsys.readouterr().out
    assert "attempt 1, gang 0: given up: ValueError: no such colour" in told
    assert "\n    ValueError: no such colour\n" in told and f"{out}/failures/a.1.txt:\n    Traceback:" in told
    assert "denoised" not in told


def test_of_what_has_not_begun_there_is_one_sentence(out, capsys):
    assert logs(out, "b") == 0
    assert capsys.readouterr().out == "nothing has been said of b: it has not been begun\n"


@pytest.mark.parametrize("name", ["d", "../a", "", "a/b", "a.1.jsonl", "\x1b[31m"])
def test_what_the_batch_does_not_have_is_refused(out, capsys, name):
    assert logs(out, name) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and len(captured.err.splitlines()) == 1 and "\x1b" not in captured.err


def test_without_an_id_the_last_of_what_the_driver_has_logged(out, capsys):
    assert logs(out) == 0
    assert capsys.readouterr().out == "the driver has logged nothing; it does only what was not expected\n"
    with driver_log(open_storage(out)):
        for number in range(50):
            logging.getLogger("cluster.pool").error("loss %d\nTraceback", number)
    assert logs(out, "--tail", 2) == 0
    told = capsys.readouterr().out.splitlines()
    assert [line.split(" ", 2)[-1] for line in told[::2]] == [
        "error cluster.pool: loss 48",
        "error cluster.pool: loss 49",
    ]
    assert logs(out) == 0
    assert capsys.readouterr().out.count("loss") == 40


def test_damaged_logs_are_left_out(out, capsys):
    log = out / "logs" / "driver.jsonl"
    good = json.dumps({"time": 1e9, "level": "error", "logger": "cluster.pool", "message": "lost"})
    log.write_bytes(b'{"time"\n[]\n\xff\xfe\n' + good.encode() + b"\n" + good.replace("1000000000.0", '"?"').encode())
    assert logs(out) == 0
    assert capsys.readouterr().out.count("error cluster.pool: lost") == 2


def test_a_directory_without_a_batch_is_refused_and_so_is_a_tail_of_nothing(tmp_path, out, capsys):
    assert logs(tmp_path / "nothing") == 2
    assert "holds no batch" in capsys.readouterr().err
    assert logs(out, "--tail", 0) == 2
    assert "--tail must be at least 1" in capsys.readouterr().err
