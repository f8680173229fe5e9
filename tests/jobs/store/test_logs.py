"""Logs are kept where the batch lies, one JSON object a line, and never stand in its way."""

import json
import logging
from pathlib import Path

import pytest

from jobs.store.logs import driver_log, logging_to
from jobs.store.open import open_storage

pytestmark = pytest.mark.timeout(60)


@pytest.mark.parametrize("place", ["directory", "bucket"])
def test_what_a_driver_logs_is_kept_and_not_printed(request, tmp_path, capsys, place):
    where = tmp_path if place == "directory" else f"{request.getfixturevalue('bucket')}/{tmp_path.name}"
    storage = open_storage(where)
    with driver_log(storage):
        logging.getLogger("cluster.pool").error("a rank was lost\nTraceback (most recent call last)")
    assert json.loads(storage.read("logs/driver.jsonl"))["message"].startswith("a rank was lost")
    assert capsys.readouterr().err == ""


def test_a_full_disk_behind_a_log_is_not_worth_a_word(capsys):
    with logging_to(Path("/dev/full")):
        logging.getLogger("cluster.pool").error("a rank was lost")
    assert capsys.readouterr().err == ""


def test_what_is_logged_is_one_object_a_line(tmp_path: Path):
    with logging_to(tmp_path / "logs" / "a.jsonl", item="0000"):
        logging.getLogger("jobs.rank").info("a\nb")
    [line] = (tmp_path / "logs" / "a.jsonl").read_text().splitlines()
    assert json.loads(line)["message"] == "a\nb" and json.loads(line)["item"] == "0000"


def test_a_log_that_cannot_be_written_neither_ends_the_work_nor_prints_a_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture
):
    (tmp_path / "logs").symlink_to("/proc/tty")
    with logging_to(tmp_path / "logs" / "a.jsonl"):
        logging.getLogger("jobs.rank").info("lost")
    assert capfd.readouterr() == ("", "")
