"""What drivers write is read as it comes, each line once."""

import pytest

from jobs.store import following
from jobs.store.additions import Additions
from jobs.store.following import Follower
from jobs.store.ledger import AnyLine, Ledger, read_lines
from jobs.store.open import open_storage
from jobs.store.storage import Storage
from tests.jobs.store.example import done_line, item


@pytest.fixture(params=["directory", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path) -> Storage:
    if request.param == "directory":
        return open_storage(tmp_path / "out")
    return open_storage(f"{request.getfixturevalue('bucket')}/{tmp_path.name}")


def written(ledger: Ledger, *ids: str) -> None:
    for each in ids:
        ledger.add("start", id=each, n=1)
    ledger.flush()


def ids(lines: list[AnyLine]) -> list[str]:
    return [line["id"] for line in lines if line["e"] == "start"]


def test_each_line_comes_once_whichever_driver_wrote_it_and_wherever_its_part_ends(storage, monkeypatch):
    follower = Follower(storage)
    assert follower.fresh() == []
    first = Ledger(storage)
    written(first, "a", "b")
    assert ids(follower.fresh()) == ["a", "b"] and follower.fresh() == []
    written(first, "c")
    Additions(storage).add(lambda members: [item(id="added")])
    second = Ledger(storage)
    written(second, "d")
    written(first, "e")  # its last words, while the next one begins
    assert ids(follower.fresh()) == ["c", "e"] and ids(follower.fresh()) == ["d"] and follower.fresh() == []
    monkeypatch.setattr(following, "PART_BYTES", 200)
    anew, told = Follower(storage), []
    while lines := anew.fresh():
        assert len(lines) < 5
        told += lines
    assert told == [line for line in read_lines(storage) if line["e"] == "start"] and len(told) == 5


def test_a_line_that_is_being_written_is_read_when_it_is_whole_and_a_damaged_one_is_left_out(tmp_path):
    storage = open_storage(tmp_path)
    segment = tmp_path / "ledger" / "000004.jsonl"
    ledger = Ledger(storage)
    ledger.add("done", **done_line("a"))
    ledger.flush()
    text = (tmp_path / "ledger" / "000001.jsonl").read_bytes()
    (tmp_path / "ledger" / "000001.jsonl").rename(segment)  # earlier ones are not there any more
    follower = Follower(storage)
    assert [line["e"] for line in follower.fresh()] == ["done"]
    segment.write_bytes(text + b'{"e":"done","t":1}\n' + text[:50])
    assert follower.fresh() == []
    segment.write_bytes(text + b'{"e":"done","t":1}\n' + text)
    assert [line["e"] for line in follower.fresh()] == ["done"] and follower.fresh() == []
