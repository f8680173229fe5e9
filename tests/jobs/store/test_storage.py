"""Files of a batch, in a directory and in an S3 bucket behind a real HTTP server."""

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.driver.recorder import Recorder
from jobs.errors import BadInput
from jobs.store.faults import StorageError, Unreadable, reason
from jobs.store.files import check_file, existing
from jobs.store.known import Done, Known, survey
from jobs.store.ledger import Ledger, read_lines, read_state
from jobs.store.lock import DriverLock
from jobs.store.open import open_storage
from jobs.store.remote import SEGMENT_BYTES
from jobs.store.storage import LAST_S, Storage
from tests.jobs.store.example import item, publish, settings

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(params=["directory", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "directory":
        return open_storage(tmp_path / "out")
    return open_storage(f"{request.getfixturevalue('bucket')}/{tmp_path.name}")


def test_what_is_written_is_read(storage: Storage):
    storage.write("a/b.json", b"one")
    storage.write("a/b.json", b"three")
    assert storage.read("a/b.json") == b"three"
    stored = storage.stored("a/b.json")
    assert stored is not None and stored.num_bytes == 5
    assert storage.folder("a") == {"b.json": stored} and storage.folders("a") == set()
    storage.write("a/c/d.json", b"")
    assert storage.folders("a") == {"c"} and set(storage.folder("a")) == {"b.json"}
    storage.remove("a")
    assert storage.stored("a/b.json") is None and storage.folder("a") == {}
    with pytest.raises(FileNotFoundError):
        storage.read("a/b.json")


def test_a_stamp_changes_when_a_file_is_written_again(storage: Storage):
    storage.write("x", b"one")
    before = storage.stored("x")
    storage.write("x", b"two")
    assert storage.stored("x") != before


def test_only_the_first_creates(storage: Storage):
    assert storage.create("lock", b"mine")
    assert not storage.create("lock", b"yours")
    assert storage.read("lock") == b"mine"


def test_of_those_who_expect_the_same_one_swaps(storage: Storage):
    storage.write("lock", b"dead")
    assert storage.compare_and_swap("lock", b"dead", b"mine")
    assert not storage.compare_and_swap("lock", b"dead", b"yours") and storage.read("lock") == b"mine"
    assert not storage.compare_and_swap("lock", b"dead", None) and storage.read("lock") == b"mine"
    assert storage.compare_and_swap("lock", b"mine", None) and storage.stored("lock") is None
    assert not storage.compare_and_swap("lock", b"mine", b"yours") and storage.stored("lock") is None


def test_what_another_writes_between_looking_and_swapping_stays(storage: Storage, monkeypatch: pytest.MonkeyPatch):
    storage.write("lock", b"dead")
    write, read = open_storage(storage.url), storage.read

    def written_after_it_was_read(name: str) -> bytes:
        text = read(name)
        write.write(name, b"living")
        return text

    monkeypatch.setattr(storage, "read", written_after_it_was_read)
    assert not storage.compare_and_swap("lock", b"dead", b"mine")
    assert write.read("lock") == b"living"


def test_a_published_file_is_here_and_whole(storage: Storage, tmp_path: Path):
    with storage.workplace("attempts/x") as place:
        (place / "file").write_bytes(b"frames")
        storage.publish(place / "file", "videos/x.mp4")
    assert storage.read("videos/x.mp4") == b"frames"
    assert storage.folder("attempts") == {}
    assert not place.exists()


def test_a_journal_grows_behind_those_that_are_there(storage: Storage):
    first, second = storage.journal("ledger"), storage.journal("other")
    first.append(b"one\n")
    first.append(b"two\n")
    assert storage.read("ledger/000001.jsonl") == b"one\ntwo\n" and storage.folder("other") == {}
    storage.journal("ledger").append(b"three\n")
    assert storage.read("ledger/000002.jsonl") == b"three\n"
    second.append(b"x" * SEGMENT_BYTES + b"\n")
    second.append(b"y\n")
    assert b"".join(storage.read(f"other/{name}") for name in sorted(storage.folder("other")))[-4:] == b"x\ny\n"


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a//b", "a/../../b", "", ".", "a\\..\\b", "a\0b"])
def test_a_name_cannot_leave_the_root(storage: Storage, name: str):
    for act in (storage.where, storage.read, storage.stored, storage.remove, storage.folder, storage.folders):
        with pytest.raises(ValueError, match="not a name below"):
            act(name)
    with pytest.raises(ValueError, match="not a name below"):
        storage.write(name, b"")


def test_a_batch_lives_on_either(storage: Storage):
    batch, one = settings(storage.url, save_latents=True), item()
    storage.check_writable()
    with DriverLock(storage, lease_s=4):
        with pytest.raises(BadInput, match="another driver works on"):
            DriverLock(storage, lease_s=20).__enter__()
        sidecar, ledger = publish(batch, one), Ledger(storage)
        stored = storage.stored(f"{one.name}.mp4")
        assert stored is not None
        ledger.add("begin", total=1)
        ledger.flush()
        ledger.add("done", **Done.of_sidecar(sidecar, one.name, stored.stamp).for_ledger())
        ledger.flush()
    assert set(storage.folder("videos")) == {
        f"0000-a-red-ball-s0.{kind}" for kind in ("mp4", "webp", "json", "safetensors")
    }
    assert read_state(storage).counts()["done"] == 1
    assert list(survey(storage, batch, [one], verify=True).finished) == ["0000"]
    assert storage.digest(f"{one.name}.mp4") == sidecar.sha256


@pytest.fixture
def lost_bucket(bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    """One whose server does not listen; s3fs keeps its clients, those of the other one, too."""
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3fs.S3FileSystem.clear_instance_cache()
    yield open_storage("s3://elsewhere/x")
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_line_that_a_full_disk_took_half_of_is_taken_back(tmp_path: Path):
    code = (
        "import resource, signal, sys; from pathlib import Path; from jobs.store.local import LocalStorage\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10, 100))\n"
        "journal = LocalStorage(Path(sys.argv[1])).journal('log'); journal.append(b'first\\n')\n"
        "try: journal.append(b'second\\n')\n"
        "except OSError: resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); journal.append(b'third\\n')"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=Path(__file__).parents[3], timeout=60)
    assert (tmp_path / "log" / "000001.jsonl").read_bytes() == b"first\nthird\n"


def test_a_folder_is_told_while_files_in_it_get_their_names(tmp_path: Path):
    storage, ended = open_storage(tmp_path), threading.Event()
    storage.write("videos/first", b"")

    def keep_writing() -> None:
        while not ended.is_set():
            storage.write("videos/second", b"")

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        assert all("first" in storage.folder("videos") for _ in range(300))
    finally:
        ended.set()
        writer.join()


def test_a_store_that_does_not_answer_is_an_error_of_the_system(lost_bucket):
    """Whatever the library calls it: drivers wait for such a storage, and no video is blamed for it."""
    storage = lost_bucket
    with pytest.raises(StorageError, match="s3://elsewhere/x cannot be used: Could not connect"):
        storage.write("a", b"one")
    with pytest.raises(BadInput, match=r"s3://elsewhere/x cannot be written: Could not connect"):
        storage.check_writable()


@pytest.fixture
def silent_bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Storage]:
    """One whose server takes connections, and never answers."""
    import s3fs

    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "test")
        s3fs.S3FileSystem.clear_instance_cache()
        yield open_storage("s3://silent/x")
        s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.timeout(20)
def test_a_driver_that_is_to_end_does_not_wait_for_a_store_that_is_silent(silent_bucket):
    DriverLock(silent_bucket).__exit__(SystemExit)
    with pytest.raises(StorageError, match="no answer to the last question"):
        silent_bucket.write("a", b"one")


def test_a_driver_that_is_to_end_has_its_last_words_on_a_store_that_answers(bucket: str):
    storage = open_storage(f"{bucket}/last-words")
    recorder = Recorder(storage, settings("out"), [item()], Known(), title="x")
    recorder.begin(total=1, todo=0)
    recorder.close("stopped")
    assert storage.patience_s <= LAST_S
    assert [line["e"] for line in read_lines(open_storage(storage.url))] == ["begin", "end"]


@pytest.fixture
def closed(tmp_path: Path) -> Iterator[Path]:
    """A directory below one that this user may not search; root becomes somebody else for the test."""
    (tmp_path / "closed" / "out" / "ledger").mkdir(parents=True)
    (tmp_path / "closed").chmod(0)
    user = os.geteuid()
    os.seteuid(user or 65534)
    yield tmp_path / "closed" / "out"
    os.seteuid(user)
    (tmp_path / "closed").chmod(0o700)


def test_below_a_folder_that_may_not_be_searched_everything_is_one_sentence(closed: Path):
    storage = open_storage(closed)
    asks = storage.read, storage.stored, storage.folder, storage.folders, lambda name: list(storage.lines(name))
    for ask in asks:
        with pytest.raises(Unreadable, match="ledger cannot be read: Permission denied"):
            ask("ledger")
    with pytest.raises(BadInput, match="cannot be written: Permission denied"):
        storage.check_writable()
    with pytest.raises(BadInput, match=r"--json .*rows.json cannot be written: Permission denied"):
        check_file(closed / "rows.json", "--json")
    assert os.path.exists(existing(closed))


def test_what_cannot_be_written_is_said_in_one_sentence():
    with pytest.raises(BadInput, match="cannot be written"):
        open_storage("/proc/resca").check_writable()
    with pytest.raises(BadInput, match="cannot be used: Protocol not known: nowhere"):
        open_storage("nowhere://bucket").check_writable()


def test_below_a_file_there_is_nothing_to_read(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileNotFoundError):
        open_storage(tmp_path / "file").read("driver.lock")


def test_a_link_to_nowhere_costs_only_itself(tmp_path: Path):
    storage = open_storage(tmp_path)
    storage.write("videos/a", b"one")
    for name, target in (("circle", "circle"), ("below a file", "a/b"), ("gone", "nothing")):
        (tmp_path / "videos" / name).symlink_to(target)
    assert list(storage.folder("videos")) == ["a"]


def test_a_file_where_a_folder_belongs_is_named(tmp_path: Path):
    storage = open_storage(tmp_path)
    storage.write("ledger", b"")
    with pytest.raises(Unreadable, match="ledger is a file where a directory belongs"):
        read_state(storage)


def test_what_was_asked_of_an_object_store_is_left_out_of_messages():
    said = (
        'Could not connect to the endpoint URL: "http://127.0.0.1:9000/bucket?list-type=2&prefix=out%2F&delimiter=%2F"'
    )
    assert reason(OSError(said)) == 'Could not connect to the endpoint URL: "http://127.0.0.1:9000/bucket"'
    assert reason(OSError("is it there? a=b")) == "is it there? a=b"
