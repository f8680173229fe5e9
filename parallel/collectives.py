"""Every collective counted in one place, by the kind of step that called it."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

Collective = Literal["all_to_all", "all_gather", "all_reduce", "broadcast", "send"]


def sent_bytes(collective: Collective, payload_bytes: int, num_ranks: int) -> int:
    """What one of `num_ranks` ranks hands over to the others, if every piece goes straight to where it is needed.

    `payload_bytes` is the size of the tensor that this rank puts in. This is the least that a rank must send; libraries
    may route otherwise (rings and trees let other ranks pass things on) and add headers, which are not counted.

    - all_to_all: all but the own slice, `n * (P - 1) / P`;
    - all_gather: the own piece to every other rank, `n * (P - 1)`;
    - all_reduce: a reduce-scatter and an all-gather of `n / P` each way, `2 * n * (P - 1) / P`;
    - send: all of it, to one other rank;
    - broadcast: the source sends `n * (P - 1)`, the others put in nothing (`payload_bytes == 0`).
    """
    others = num_ranks - 1
    match collective:
        case "all_to_all":
            return payload_bytes * others // num_ranks
        case "all_reduce":
            return 2 * payload_bytes * others // num_ranks
        case "all_gather" | "broadcast":
            return payload_bytes * others
        case "send":
            return payload_bytes


@dataclass(frozen=True, kw_only=True)
class CallTime:
    """What a call took, of several the median, and what a rank sends in one."""

    collective: Collective
    bytes_sent: int
    seconds: float


class CollectiveCounter:
    """Calls and bytes sent by this rank, booked under the kind of step named last (`"setup"` before any)."""

    def __init__(self) -> None:
        self._kind = "setup"
        self._steps: Counter[str] = Counter()
        self._calls: Counter[tuple[str, str, int]] = Counter()
        self._bytes: Counter[tuple[str, str, int]] = Counter()

    def mark(self, kind: str) -> None:
        """A step of this kind begins; what follows is booked under it."""
        self._kind = kind
        self._steps[kind] += 1

    def book(self, collective: Collective, payload_bytes: int, num_ranks: int) -> None:
        """Counts one call into which this rank puts `payload_bytes`, among `num_ranks` ranks (see `sent_bytes`)."""
        booked = self._kind, collective, 1 if collective == "send" else num_ranks - 1
        self._calls[booked] += 1
        self._bytes[booked] += sent_bytes(collective, payload_bytes, num_ranks)

    def clear(self) -> None:
        """Forgets everything booked so far, for example before the next video."""
        self._kind = "setup"
        for counter in (self._steps, self._calls, self._bytes):
            counter.clear()

    def rows(self) -> list[dict[str, str | int]]:
        """One row per kind of step, in order of appearance: step, steps, calls, bytes_sent, peers (all of this rank).

        `peers` are the most ranks that it exchanged with in one call. A kind of step that called no collective has a
        row too, with zeros.
        """
        kinds = dict.fromkeys([kind for kind, _, _ in self._calls] + list(self._steps))
        return [
            {
                "step": kind,
                "steps": self._steps[kind],
                "calls": _of(kind, self._calls),
                "bytes_sent": _of(kind, self._bytes),
                "peers": max((peers for booked, _, peers in self._calls if booked == kind), default=0),
            }
            for kind in kinds
        ]

    def details(self) -> list[dict[str, str | int]]:
        """One row per kind of step, collective and number of peers, with calls and bytes_sent (all by this rank)."""
        return [
            {
                "step": kind,
                "collective": collective,
                "peers": peers,
                "calls": calls,
                "bytes_sent": self._bytes[kind, collective, peers],
            }
            for (kind, collective, peers), calls in self._calls.items()
        ]


def _of(kind: str, counter: Counter[tuple[str, str, int]]) -> int:
    return sum(count for (booked, _, _), count in counter.items() if booked == kind)
