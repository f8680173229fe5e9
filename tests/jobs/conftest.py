"""An object store for tests: an S3 bucket behind a real HTTP server."""

import os
import secrets
from collections.abc import Iterator

import pytest

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
