"""The ledger: what is read back is what was added, whatever was torn."""

import json
import os
import tracemalloc
from pathlib import Path
from typing import get_args

import pytest

from jobs.store import ledger_lines as types
from jobs.store.ledger import Ledger, read_lines, read_state
from jobs.store.ledger_lines import AnyLine, DoneLine
from jobs.store.open import open_storage
from jobs.store.storage import Storage
from tests.jobs.schema import typed, written
from tests.jobs.store.example import done_line


def write(storage: Storage, *lines: tuple[str, dict]) -> None:
    ledger = Ledger(storage)
    for kind, facts in lines:
        ledger.add(kind, **facts)
    ledger.flush()


def test_the_state_of_a_batch_follows_items_through_their_states(tmp_path):
    storage = open_storage(tmp_path)
    lines = [
        ("begin", {"total": 4}),
        ("start", {"id": "a", "n": 1}),
        ("start", {"id": "b", "n": 1}),
        ("start", {"id": "c", "n": 1}),
        ("again", {"id": "b", "n": 1, "why": "infrastructure"}),
        ("done", done_line("a", n=1)),
        ("fail", {"id": "c", "n": 1, "error": "no"}),
    ]
    write(storage, *lines)
    state = read_state(storage)
    assert dict(state.counts()) == {"done": 1, "retrying": 1, "failed": 1, "waiting": 1}
    assert state.retries == {"infrastructure": 1} and state.ended is None
    write(storage, ("begin", {"total": 4}))
    assert dict(read_state(storage).counts()) == {"done": 1, "failed": 1, "waiting": 2}
    write(storage, ("begin", {"total": 4, "retry": True}), ("end", {"how": "done"}))
    again = read_state(storage)
    assert dict(again.counts()) == {"done": 1, "waiting": 3}
    assert again.ended is not None and again.ended["how"] == "done"


def test_nothing_runs_any_more_when_a_driver_has_said_its_last_words(tmp_path):
    storage = open_storage(tmp_path)
    begun = [("start", {"id": "a", "n": 1}), ("start", {"id": "b", "n": 1}), ("again", {"id": "b", "n": 1})]
    write(storage, ("begin", {"total": 3}), *begun, ("end", {"how": "stopped"}))
    state = read_state(storage)
    assert dict(state.counts()) == {"waiting": 3} and state.items["a"].attempts == 1


def test_each_driver_has_a_file_of_its_own_and_none_is_changed_by_the_next(tmp_path):
    storage = open_storage(tmp_path)
    write(storage, ("begin", {"total": 1}))
    first = (tmp_path / "ledger" / "000001.jsonl").read_bytes()
    write(storage, ("begin", {"total": 1}))
    assert (tmp_path / "ledger" / "000001.jsonl").read_bytes() == first
    assert (tmp_path / "ledger" / "000002.jsonl").exists()


def test_a_line_that_a_killed_driver_did_not_finish_counts_for_nothing(tmp_path):
    storage = open_storage(tmp_path)
    write(storage, ("begin", {"total": 2}), ("done", done_line("a")), ("done", done_line("b")))
    path = tmp_path / "ledger" / "000001.jsonl"
    path.write_bytes(path.read_bytes()[:-9] + b"\xff\x00")
    write(storage, ("start", {"id": "b", "n": 1}))
    assert dict(read_state(storage).counts()) == {"done": 1, "running": 1}


def test_what_could_not_be_written_is_written_the_next_time(tmp_path):
    storage = open_storage(tmp_path)
    ledger = Ledger(storage)
    (tmp_path / "ledger").write_text("in the way")
    ledger.add("begin", total=1)
    try:
        ledger.flush()
        raise AssertionError("the way was free")
    except OSError:
        (tmp_path / "ledger").unlink()
    ledger.add("start", id="a", n=1)
    ledger.flush()
    assert dict(read_state(storage).counts()) == {"running": 1}


def test_what_a_signal_interrupted_stands_there_once(tmp_path, monkeypatch):
    """SIGTERM comes as an exception, here when the lines are written and not yet synced; the last words come later."""

    def end(_: int) -> None:
        raise SystemExit(143)

    storage = open_storage(tmp_path)
    ledger = Ledger(storage)
    ledger.add("begin", total=1)
    ledger.flush()
    ledger.add("start", id="a", n=1)
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(os, "fsync", end)
        ledger.flush()
    ledger.add("end", how="stopped")
    ledger.flush()
    assert [line["e"] for line in read_lines(storage)] == ["begin", "start", "end"]


DONE = {"e": "done", "t": 1.0, **{key: value for key, value in done_line("a").items() if value is not None}}
DAMAGED = {
    "no JSON": "{",
    "deep": "[" * 200_000,
    "no object": "[]",
    "a number": "1",
    "no kind": '{"t": 1.0}',
    "no time": '{"e": "start", "id": "a"}',
    "a time that is none": '{"e": "start", "t": 1e300, "id": "a"}',
    "a time before all": '{"e": "start", "t": -5, "id": "a"}',
    "a total below zero": '{"e": "begin", "t": 1.0, "total": -5}',
    "no id": '{"e": "start", "t": 1.0}',
    "a list as id": '{"e": "start", "t": 1.0, "id": ["a"]}',
    "no total": '{"e": "begin", "t": 1.0, "model": "demo", "method": "full"}',
    "no end": '{"e": "end", "t": 1.0}',
    "no name": json.dumps({key: value for key, value in DONE.items() if key != "name"}),
    "a name elsewhere": json.dumps(DONE | {"name": "videos/../../etc"}),
    "no seconds of a stage": json.dumps(DONE | {"s": {"encode": 1.0}}),
    "not UTF-8": b'{"e": "start", "t": 1.0, "id": "\xe9"}',
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_line_is_counted_and_costs_nothing_but_itself(tmp_path, kind):
    storage, line = open_storage(tmp_path), DAMAGED[kind]
    write(storage, ("begin", {"total": 2}), ("done", done_line("a")))
    with (tmp_path / "ledger" / "000001.jsonl").open("ab") as file:
        file.write((line if isinstance(line, bytes) else line.encode()) + b"\n\n")
    write(storage, ("start", {"id": "b", "n": 1}))
    state = read_state(storage)
    assert dict(state.counts()) == {"done": 1, "running": 1} and state.num_damaged == 1
    assert [line["e"] for line in read_lines(storage)] == ["begin", "done", "start"]


def test_lines_of_other_versions_are_not_damaged(tmp_path):
    storage = open_storage(tmp_path)
    write(storage, ("begin", {"total": 1, "mood": "blue"}), ("daydream", {"of": []}))
    state = read_state(storage)
    assert (state.num_damaged, dict(state.counts())) == (0, {"waiting": 1})


def test_a_segment_of_any_size_is_read_as_a_stream(tmp_path):
    storage, path = open_storage(tmp_path), tmp_path / "ledger" / "000001.jsonl"
    write(storage, ("begin", {"total": 1}))
    with path.open("r+b") as file:  # a hole of zeros, as a crashed file system leaves it
        file.truncate(64 << 20)
        file.seek(0, 2)
        file.write(b"\n" + json.dumps(DONE).encode() + b"\n")
    tracemalloc.start()
    try:
        state = read_state(storage)
        assert tracemalloc.get_traced_memory()[1] < 50 << 20
    finally:
        tracemalloc.stop()
    assert dict(state.counts()) == {"done": 1} and state.num_damaged == 1


def test_the_schema_that_is_written_down_is_that_of_the_types():
    assert written(Path(types.__file__).with_name("ledger.md")) == typed(get_args(AnyLine))


def test_all_that_drivers_write_of_a_video_is_in_the_schema():
    assert done_line("a", n=1, g=0, stamp="1", poster=True).keys() <= DoneLine.__annotations__.keys()
