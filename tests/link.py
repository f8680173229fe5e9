"""A network namespace at the other end of a link whose rate and delay can be changed at any time.

The link is a pair of TUN devices, between which `tests.relay` carries the packets: the kernel's own way, `tc` with
netem, is missing from many kernels.
"""

import fcntl
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NAMESPACE, NEAR_END, FAR_END, NEAR, FAR = "resca-relayed", "resca-relay0", "resca-relay1", "10.79.0.1", "10.79.0.2"
MTU = 65000  # so that a relay in Python has few packets to carry
SET_TUN, TUN, NO_HEADER = 0x400454CA, 0x0001, 0x1000  # TUNSETIFF, IFF_TUN and IFF_NO_PI in linux/if_tun.h


class Link:
    """What `linked_namespace` gives."""

    def __init__(self, relay: "subprocess.Popen[str]") -> None:
        self._relay = relay

    def set(self, *, bytes_per_s: float = float("inf"), delay_s: float = 0.0) -> None:
        """From now on; the delay is that of each direction."""
        assert self._relay.stdin
        self._relay.stdin.write(f"{bytes_per_s} {delay_s}\n")
        self._relay.stdin.flush()
        assert self._relay.stdout and self._relay.stdout.readline(), "the relay has ended"


@contextmanager
def linked_namespace() -> Iterator[Link]:
    """NAMESPACE, whose processes have the address FAR, and reach this machine's own over the link alone.

    Skips where that is not allowed.
    """
    _remove()
    made = run("ip", "netns", "add", NAMESPACE, check=False)
    if made.returncode or not os.access("/dev/net/tun", os.W_OK):
        _remove()
        pytest.skip(f"network namespaces or TUN devices cannot be made here: {made.stderr.strip()}")
    ends = [_tun(name) for name in (NEAR_END, FAR_END)]
    command = [sys.executable, "-m", "tests.relay", *map(str, ends)]
    relay = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=ends, cwd=ROOT)
    try:
        run("ip", "link", "set", FAR_END, "netns", NAMESPACE)
        for prefix, end, address in ((["ip"], NEAR_END, NEAR), (["ip", "-n", NAMESPACE], FAR_END, FAR)):
            run(*prefix, "address", "add", f"{address}/24", "dev", end)
            run(*prefix, "link", "set", end, "mtu", str(MTU), "up")
        run("ip", "-n", NAMESPACE, "link", "set", "lo", "up")
        run("ip", "-n", NAMESPACE, "route", "add", "default", "via", NEAR)
        yield Link(relay)
    finally:
        relay.kill()
        relay.wait()
        with suppress(BrokenPipeError):
            relay.stdin.close() if relay.stdin else None
        for end in ends:
            os.close(end)
        _remove()


def there(*words: str) -> list[str]:
    """A command for the other end of the link."""
    return ["ip", "netns", "exec", NAMESPACE, *words]


def _tun(name: str) -> int:
    """The device, which lives as long as somebody has its descriptor."""
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, SET_TUN, struct.pack("16sH22x", name.encode(), TUN | NO_HEADER))
    return device


def _remove() -> None:
    run("ip", "netns", "del", NAMESPACE, check=False)


def run(*words: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(words, capture_output=True, text=True, check=check, timeout=60, cwd=Path("/"))
