"""Logs are kept where the batch lies, and never stand in its way."""

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
        logging.getLogger("cluster.batch").error("a rank was lost\nTraceback (most recent call last)")
    assert json.loads(storage.read("logs/driver.jsonl"))["message"].startswith("a rank was lost")
    assert capsys.readouterr().err == ""


def test_a_full_disk_behind_a_log_is_not_worth_a_word(capsys):
    with logging_to(Path("/dev/full")):
        logging.getLogger("cluster.batch").error("a rank was lost")
    assert capsys.readouterr().err == ""
