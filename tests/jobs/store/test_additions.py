"""What is added to a batch: nothing that was told is lost, whoever adds at the same time, and whoever is killed."""

import errno
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from jobs.errors import BadInput
from jobs.store import additions
from jobs.store.additions import PROMPTS, Additions
from jobs.store.items import RenderItem
from jobs.store.ledger import Ledger, read_lines, read_state
from jobs.store.members import Members
from jobs.store.open import open_storage
from jobs.store.storage import Storage
from tests.jobs.store.example import done_line, item

ROOT = Path(__file__).parents[3]
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(params=["directory", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    if request.param == "directory":
        return open_storage(tmp_path / "out")
    monkeypatch.setattr(additions, "SETTLE_S", 0.01)
    return open_storage(f"{request.getfixturevalue('bucket')}/{tmp_path.name}")


def these(*items: RenderItem) -> additions.Ask:
    return lambda members: items


def numbered(members: Members) -> list[RenderItem]:
    number = members.next_number
    return [item(id=f"{number:04d}", seed=number)]


def remember(storage: Storage, *items: RenderItem) -> None:
    storage.write(PROMPTS, "".join(f"{each.model_dump_json(exclude_none=True)}\n" for each in items).encode())


def test_what_one_adds_others_read_in_order(storage: Storage):
    mine, drivers = Additions(storage), Additions(storage)
    assert drivers.fresh() == []
    first, second = item(id="a", guidance=3.0, negative_prompt=""), item(id="b")
    assert mine.add(these(first, second)) == [first, second]
    assert [line["id"] for line in drivers.fresh()] == ["a", "b"] and drivers.fresh() == []
    assert mine.withdraw("a") and not mine.withdraw("a") and not mine.withdraw("nobody")
    assert [line["e"] for line in drivers.fresh()] == ["withdraw"]
    anew = Additions(open_storage(storage.url))
    assert [line["e"] for line in anew.fresh()] == ["add", "add", "withdraw"]
    assert anew.items == drivers.items == [second] and anew.is_withdrawn(first)
    mine.add(these(first))
    assert [line["id"] for line in anew.fresh()] == ["a"] and not anew.is_withdrawn(first)


def test_numbers_go_on_behind_those_of_the_batch_and_of_others(storage: Storage):
    remember(storage, item(id="0000"), item(id="0006-2", seed=1), item(id="name"))
    mine, others = Additions(storage), Additions(storage)
    assert [each.id for each in mine.add(numbered)] == ["0007"]
    assert [each.id for each in others.add(numbered)] == ["0008"]
    assert mine.withdraw("0008")
    assert [each.id for each in mine.add(numbered)] == ["0009"]
    remember(storage, item(id="0020"))
    assert [each.id for each in others.add(numbered)] == ["0021"]


def test_the_same_again_adds_nothing_and_what_collides_is_refused(tmp_path: Path):
    remember(storage := open_storage(tmp_path), item(id="old"))
    adder, segments = Additions(storage), tmp_path / "ledger"
    adder.add(these(item(id="a"), item(id="old")))
    assert [line["id"] for line in read_lines(storage)] == ["a"]
    before = list(segments.iterdir())
    assert adder.add(these(item(id="a"))) == [item(id="a")]
    other = item(id="a", prompt="something else")
    for wrong in (other, item(id="A"), item(id="old", seed=5)):
        with pytest.raises(BadInput, match="is that of another item of the batch"):
            adder.add(these(item(id="new"), wrong))
    with pytest.raises(BadInput, match="is that of another"):
        adder.add(these(item(id="new"), item(id="new", seed=3)))
    adder.add(these(item(id="x", prompt="y z")))
    with pytest.raises(BadInput, match="items 'x' and 'x-y' would both be written to videos/x-y-z-s0"):
        adder.add(these(item(id="x-y", prompt="z")))
    assert len(before) == 1 and len(list(segments.iterdir())) == 2


def test_a_request_with_a_key_is_made_once(tmp_path: Path):
    storage = open_storage(tmp_path)
    first = Additions(storage).add(numbered, key="mine")
    assert Additions(storage).add(numbered, key="mine") == first
    assert Additions(storage).add(numbered, key="other") != first
    assert len(Additions(storage).fresh()) == 2


def test_a_running_drivers_segment_is_not_touched_nor_is_its_number_taken(tmp_path: Path):
    storage = open_storage(tmp_path)
    ledger = Ledger(storage)
    ledger.add("begin", total=1)
    Additions(storage).add(numbered)
    ledger.flush()
    assert set(storage.folder("ledger")) == {"000001.jsonl", "add-000001.jsonl"}
    Ledger(storage).flush()
    again = Ledger(storage)
    again.add("begin", total=1)
    again.flush()
    assert "000002.jsonl" in storage.folder("ledger")


def test_a_batch_counts_what_was_added_and_not_what_was_withdrawn(tmp_path: Path):
    storage, ledger = open_storage(tmp_path), Ledger(open_storage(tmp_path))
    adder = Additions(storage)
    adder.add(numbered)
    assert dict(read_state(storage).counts()) == {"waiting": 1}
    ledger.add("begin", total=3, added=1)
    ledger.flush()
    adder.add(these(item(id="a"), item(id="b")))
    assert dict(read_state(storage).counts()) == {"waiting": 5}
    for each in ("a", "b"):
        ledger.add("done", **done_line(each))
    ledger.flush()
    assert dict(read_state(storage).counts()) == {"done": 2, "waiting": 3}
    adder.withdraw("a")
    state = read_state(storage)
    assert dict(state.counts()) == {"done": 1, "waiting": 3} and state.num_damaged == 0


def test_of_many_who_add_at_once_each_has_a_number_of_its_own(tmp_path: Path):
    told: list[list[str]] = []

    def add() -> None:
        adder = Additions(open_storage(tmp_path))
        told.append([each.id for _ in range(25) for each in adder.add(numbered)])

    threads = [threading.Thread(target=add) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ids = sorted(each for of_one in told for each in of_one)
    assert ids == [f"{number:04d}" for number in range(100)]
    assert [each.id for each in reread(tmp_path)] == ids


ADDER = """
import sys
from jobs.store.additions import Additions
from jobs.store.items import RenderItem
from jobs.store.open import open_storage
adder = Additions(open_storage(sys.argv[1]))
size = dict(height=16, width=16, num_frames=5, steps=4)
ask = lambda members: [RenderItem(id=f"{members.next_number:04d}", prompt="x", seed=members.next_number, **size)]
while True:
    print(adder.add(ask)[0].id, flush=True)
"""


def test_what_was_told_is_there_after_both_adders_were_killed(tmp_path: Path):
    start = [sys.executable, "-c", ADDER, str(tmp_path)]
    adders = [subprocess.Popen(start, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    told: list[str] = []
    for adder in adders:
        assert adder.stdout is not None
        told += [adder.stdout.readline().strip() for _ in range(10)]
    for adder in adders:
        adder.send_signal(signal.SIGKILL)
        told += adder.communicate()[0].split()
    ids = [each.id for each in reread(tmp_path)]
    assert set(told) <= set(ids) and len(told) == len(set(told)) and len(ids) == len(set(ids))
    assert len(ids) - len(told) <= 2  # which each of them had written, and not yet told
    assert [each.id for each in Additions(open_storage(tmp_path)).add(numbered)] == [f"{len(ids):04d}"]


def reread(directory: Path) -> list[RenderItem]:
    adder = Additions(open_storage(directory))
    adder.refresh()
    return adder.items


def test_where_files_have_one_name_alone_a_killed_adders_part_is_in_nobodys_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(additions, "PATIENCE_S", 0.05)
    monkeypatch.setattr(os, "link", refused)
    storage = open_storage(tmp_path)
    reader, adder = Additions(storage), Additions(storage)
    adder.add(numbered)
    part = (tmp_path / "ledger" / "add-000001.jsonl").read_bytes()[:-5]
    (tmp_path / "ledger" / "add-000002.jsonl").write_bytes(part)
    assert len(reader.fresh()) == 1 and reader.fresh() == []
    assert [each.id for each in adder.add(numbered)] == ["0001"]
    assert [line["id"] for line in reader.fresh()] == ["0001"] == [each.id for each in reread(tmp_path)][1:]


def refused(*_: object) -> None:
    raise OSError(errno.EPERM, os.strerror(errno.EPERM))


def test_requests_share_a_segment_and_those_that_are_made_again_find_what_they_have_added(storage: Storage):
    adder, first = Additions(storage), item(id="a")
    assert adder.add_each([(first, "one"), (item(id="b"), "two"), (item(id="c"), None)]) == [
        first, item(id="b"), item(id="c")
    ]  # fmt: skip
    anew = Additions(storage)
    assert anew.add_each([(item(id="d"), "two"), (item(id="e"), "three")]) == [item(id="b"), item(id="e")]
    assert [(line["id"], line.get("key")) for line in read_lines(storage)] == [
        ("a", "one"), ("b", "two"), ("c", None), ("e", "three")
    ]  # fmt: skip
    assert len(storage.folder("ledger")) == 2
    with pytest.raises(BadInput, match="id 'a' is that of another item"):
        anew.add_each([(item(id="f"), "four"), (item(id="a", prompt="something else"), "five")])
    assert [line["id"] for line in read_lines(storage)] == ["a", "b", "c", "e"]
