"""The ledger: what is read back is what was added, whatever was torn."""

from jobs.store.ledger import Ledger, read_account
from jobs.store.open import open_storage
from jobs.store.storage import Storage


def write(storage: Storage, *lines: tuple[str, dict]) -> None:
    ledger = Ledger(storage)
    for kind, facts in lines:
        ledger.add(kind, **facts)
    ledger.flush()


def test_an_account_follows_items_through_their_states(tmp_path):
    storage = open_storage(tmp_path)
    lines = [
        ("begin", {"total": 4}),
        ("start", {"id": "a", "n": 1}),
        ("start", {"id": "b", "n": 1}),
        ("start", {"id": "c", "n": 1}),
        ("again", {"id": "b", "n": 1, "why": "infrastructure"}),
        ("done", {"id": "a", "n": 1}),
        ("fail", {"id": "c", "n": 1, "error": "no"}),
    ]
    write(storage, *lines)
    account = read_account(storage)
    assert dict(account.counts()) == {"done": 1, "retrying": 1, "failed": 1, "waiting": 1}
    assert account.retries == {"infrastructure": 1} and account.ended is None
    write(storage, ("begin", {"total": 4}))
    assert dict(read_account(storage).counts()) == {"done": 1, "failed": 1, "waiting": 2}
    write(storage, ("begin", {"total": 4, "retry": True}), ("end", {"how": "done"}))
    again = read_account(storage)
    assert dict(again.counts()) == {"done": 1, "waiting": 3}
    assert again.ended is not None and again.ended["how"] == "done"


def test_each_driver_has_a_file_of_its_own_and_none_is_changed_by_the_next(tmp_path):
    storage = open_storage(tmp_path)
    write(storage, ("begin", {"total": 1}))
    first = (tmp_path / "ledger" / "000001.jsonl").read_bytes()
    write(storage, ("begin", {"total": 1}))
    assert (tmp_path / "ledger" / "000001.jsonl").read_bytes() == first
    assert (tmp_path / "ledger" / "000002.jsonl").exists()


def test_a_line_that_a_killed_driver_did_not_finish_counts_for_nothing(tmp_path):
    storage = open_storage(tmp_path)
    write(storage, ("begin", {"total": 2}), ("done", {"id": "a"}), ("done", {"id": "b"}))
    path = tmp_path / "ledger" / "000001.jsonl"
    path.write_bytes(path.read_bytes()[:-9] + b"\xff\x00")
    write(storage, ("start", {"id": "b", "n": 1}))
    assert dict(read_account(storage).counts()) == {"done": 1, "running": 1}


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
    assert dict(read_account(storage).counts()) == {"running": 1}
