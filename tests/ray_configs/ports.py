"""Ports that nobody listens on, and that nobody is given before the test uses them."""

import ipaddress
import os
import random
import socket
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice

# Above those of Ray's workers (10002 to 19999) and below those that the system gives away (from 32768 on Linux), which
# another test's Ray might take between the test's look and its use. Each of two test processes has its own half.
FIRST, SIZE = {"gw1": 26000}.get(os.environ.get("PYTEST_XDIST_WORKER", ""), 20000), 6000


def free_ports(number: int) -> list[int]:
    return list(islice(_free(), number))


def _free() -> Iterator[int]:
    for port in random.sample(range(FIRST, FIRST + SIZE), SIZE):
        with suppress(OSError):
            socket.create_server(("", port)).close()
            yield port


def is_loopback(address: str) -> bool:
    parsed = ipaddress.ip_address(address)
    return (getattr(parsed, "ipv4_mapped", None) or parsed).is_loopback
