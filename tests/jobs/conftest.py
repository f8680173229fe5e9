"""A small model with prompts to ask `resca render` for; and an object store: an S3 bucket behind a real HTTP server."""

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.__main__ import main
from tests.jobs.models.test_facts import make_model

KEYS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1"}


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The URL of a bucket that s3fs finds through the environment, as users have it."""
    import s3fs
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    before = dict(os.environ)
    os.environ.update(KEYS, AWS_ENDPOINT_URL=f"http://{host}:{port}")
    s3fs.S3FileSystem.clear_instance_cache()  # it may know the server of another module
    name = f"videos-{secrets.token_hex(4)}"  # and moto, within one process, that one's buckets
    s3fs.S3FileSystem().mkdir(name)
    yield f"s3://{name}"
    os.environ.clear()
    os.environ.update(before)
    server.stop()


GOOD = "a red ball\na blue cube\n"


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A directory with a model of 4 heads (64x64, 5 frames: 32 tokens) and a good prompt file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    make_model(tmp_path / "model", {"num_attention_heads": 4}, height=64, width=64, num_frames=5, fps=8, steps=12)
    (tmp_path / "good.txt").write_text(GOOD)
    return tmp_path


def render(*arguments: str) -> int:
    try:
        return main(["render", "--model", "model", "--out", "out", *arguments])
    except SystemExit as stop:
        assert isinstance(stop.code, int)
        return stop.code


def complaint(capsys, *arguments: str) -> str:
    """The one sentence on stderr of a command that ends with 2 and leaves nothing behind."""
    before = sorted(Path().rglob("*"))
    assert render(*arguments) == 2
    assert sorted(Path().rglob("*")) == before
    captured = capsys.readouterr()
    assert captured.err.startswith("resca: ") and len(captured.err.splitlines()) == 1
    return captured.err
