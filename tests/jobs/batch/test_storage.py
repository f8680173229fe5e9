"""Files of a batch, in a directory and in an S3 bucket behind a real HTTP server."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from jobs.batch.known import Done, survey
from jobs.batch.ledger import Ledger, read_account
from jobs.batch.lock import DriverLock
from jobs.batch.storage import Storage
from jobs.errors import BadInput
from tests.jobs.batch.example import item, publish

pytestmark = pytest.mark.timeout(120)
KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URL of a bucket that s3fs finds through the environment, as users have it."""
    import s3fs

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    before = dict(os.environ)
    os.environ.update(KEYS, AWS_ENDPOINT_URL=f"http://{host}:{port}")
    s3fs.S3FileSystem().mkdir("videos")
    yield "s3://videos"
    os.environ.clear()
    os.environ.update(before)
    server.stop()


@pytest.fixture(params=["directory", "bucket"])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "directory":
        return Storage(tmp_path / "out")
    return Storage(f"{request.getfixturevalue('bucket')}/{tmp_path.name}")


def test_what_is_written_is_read(storage: Storage):
    storage.write("a/b.json", b"one")
    storage.write("a/b.json", b"three")
    assert storage.read("a/b.json") == b"three"
    stored = storage.stored("a/b.json")
    assert stored is not None and stored.num_bytes == 5
    assert storage.folder("a") == {"b.json": stored}
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


def test_a_published_file_is_here_and_whole(storage: Storage, tmp_path: Path):
    with storage.workplace("attempts/x") as place:
        (place / "file").write_bytes(b"frames")
        storage.publish(place / "file", "videos/x.mp4")
    assert storage.read("videos/x.mp4") == b"frames"
    assert storage.folder("attempts") == {}
    assert not place.exists()


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a//b", "a/../../b", "", ".", "a\\..\\b", "a\0b"])
def test_a_name_cannot_leave_the_root(storage: Storage, name: str):
    for act in (storage.where, storage.read, storage.stored, storage.remove, storage.folder):
        with pytest.raises(ValueError, match="not a name below"):
            act(name)
    with pytest.raises(ValueError, match="not a name below"):
        storage.write(name, b"")


def test_a_batch_lives_on_either(storage: Storage):
    one = item(storage.url, save_latents=True)
    storage.check_writable()
    with DriverLock(storage):
        with pytest.raises(BadInput, match="another driver works on"):
            DriverLock(storage, lease_s=20).__enter__()
        sidecar, ledger = publish(one), Ledger(storage)
        stored = storage.stored(one.video)
        assert stored is not None
        ledger.add("begin", total=1)
        ledger.flush()
        ledger.add("done", **Done.of_sidecar(sidecar, one.name, stored.stamp).facts())
        ledger.flush()
    assert set(storage.folder("videos")) == {f"0000-a-red-ball-s0.{kind}" for kind in ("mp4", "json", "safetensors")}
    assert read_account(storage).counts()["done"] == 1
    assert list(survey(storage, [one], verify=True).finished) == ["0000"]
    assert storage.digest(one.video) == sidecar.sha256


def test_what_cannot_be_written_is_said_in_one_sentence():
    with pytest.raises(BadInput, match="cannot be written"):
        Storage("/proc/resca").check_writable()
    with pytest.raises(BadInput, match="cannot be used: Protocol not known: nowhere"):
        Storage("nowhere://bucket").check_writable()
