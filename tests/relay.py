"""Carries packets between the two ends of a link, as late as its rate and its delay say.

python -m tests.relay FD FD    # both ends; each line of standard input is a new rate, bytes a second, and delay, s,
which is answered by a line when it holds.
"""

import ctypes
import os
import select
import sys
import time
from collections import deque

PACKET_BYTES = 1 << 16
PR_SET_TIMERSLACK = 29  # of linux/prctl.h: by how many nanoseconds the kernel may wake us too late


class Direction:
    """From one end to the other: a packet leaves when those before it have left, and arrives after the delay."""

    def __init__(self, source: int, sink: int) -> None:
        self._source, self._sink = source, sink
        self._under_way: deque[tuple[float, bytes]] = deque()
        self._free_at = 0.0

    @property
    def next_s(self) -> float:
        """When the next packet arrives."""
        return self._under_way[0][0] if self._under_way else float("inf")

    def take(self, bytes_per_s: float, delay_s: float) -> None:
        try:
            packet = os.read(self._source, PACKET_BYTES)
        except BlockingIOError:
            return
        self._free_at = max(self._free_at, time.monotonic()) + len(packet) / bytes_per_s
        self._under_way.append((self._free_at + delay_s, packet))

    def give(self) -> None:
        while self.next_s <= time.monotonic():
            try:
                os.write(self._sink, self._under_way.popleft()[1])
            except OSError:  # What the other end does not take is lost, as on any link.
                continue


def relay(ends: tuple[int, int]) -> None:
    """Until standard input ends."""
    directions = {near: Direction(near, far) for near, far in (ends, ends[::-1])}
    bytes_per_s, delay_s, orders = float("inf"), 0.0, sys.stdin.fileno()
    while True:
        next_s = min(direction.next_s for direction in directions.values())
        wait_s = None if next_s == float("inf") else max(0.0, next_s - time.monotonic())
        ready, _, _ = select.select([*ends, orders], [], [], wait_s)
        for direction in directions.values():
            direction.give()
        for end in set(ready) & set(ends):
            directions[end].take(bytes_per_s, delay_s)
        if orders in ready:
            line = sys.stdin.readline()
            if not line:
                return
            bytes_per_s, delay_s = map(float, line.split())
            print("so it is", flush=True)


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1)
    os.nice(-10)
    relay((int(sys.argv[1]), int(sys.argv[2])))
