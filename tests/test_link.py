"""The link that tests put between two namespaces has the rate and the delay that it is said to have."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tests.link import FAR, NEAR, Link, linked_namespace, there

ECHO = """
import socket
connection = socket.create_connection(("{address}", {port}))
while data := connection.recv(1 << 20):
    connection.sendall(data[:1])
"""


@pytest.fixture
def link() -> Iterator[Link]:
    with linked_namespace() as link:
        yield link


@pytest.fixture
def peer(link: Link) -> Iterator[socket.socket]:
    """Connected with a process at the other end, which answers to what comes with single bytes."""
    with socket.create_server((NEAR, 0)) as server:
        code = ECHO.format(address=NEAR, port=server.getsockname()[1])
        process = subprocess.Popen(there(sys.executable, "-c", code))
        server.settimeout(60)
        connection, (address, _) = server.accept()
        assert address == FAR
        try:
            yield connection
        finally:
            connection.close()
            process.wait(30)


def first_answer(peer: socket.socket) -> float:
    """The fewest seconds of some tries in which a byte goes there and another comes back."""
    seconds = []
    for _ in range(8):
        started = time.monotonic()
        peer.sendall(b"x")
        assert peer.recv(1)
        seconds.append(time.monotonic() - started)
    return min(seconds)


def test_a_delay_is_that_of_each_direction(link: Link, peer: socket.socket):
    link.set(delay_s=0.02)
    delayed = first_answer(peer)
    assert delayed >= 0.04
    link.set()
    assert first_answer(peer) < delayed


def test_a_rate_holds_back_what_is_sent(link: Link, peer: socket.socket):
    link.set(bytes_per_s=1e7)
    started = time.monotonic()
    peer.sendall(bytes(4_000_000))
    peer.shutdown(socket.SHUT_WR)
    while peer.recv(1 << 20):
        pass
    assert time.monotonic() - started >= 0.4
