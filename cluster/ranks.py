"""Pure rank assignment: which member of a gang becomes which rank."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class RankContext:
    """What one worker knows of its gang; `device` is "cpu" or "cuda:0" (a worker sees only its own accelerator)."""

    rank: int
    world_size: int
    local_rank: int
    device: str


@dataclass(frozen=True, kw_only=True)
class Member:
    """Where one worker landed: its node (Ray's id), its host's address, its accelerator ("" on a CPU)."""

    node_id: str
    host: str
    accelerator: str = ""

    @property
    def device(self) -> str:
        return "cuda:0" if self.accelerator else "cpu"


def assign_ranks(members: Sequence[Member]) -> list[RankContext]:
    """The rank of each member, in the order of `members`: sorted by node, then by device.

    Neighbouring ranks so share a node, which keeps the heaviest collectives on the fastest links.
    """
    order = sorted(range(len(members)), key=lambda index: (_place(members[index]), index))
    ranks_on_node: dict[str, int] = defaultdict(int)
    contexts = {}
    for rank, index in enumerate(order):
        member = members[index]
        local_rank = ranks_on_node[member.node_id]
        ranks_on_node[member.node_id] += 1
        contexts[index] = RankContext(rank=rank, world_size=len(members), local_rank=local_rank, device=member.device)
    return [contexts[index] for index in range(len(members))]


def _place(member: Member) -> tuple:
    return _natural(member.host), member.node_id, _natural(member.accelerator)


def _natural(text: str) -> list[tuple[int, int, str]]:
    """Sorts "10" after "9", and words after numbers."""
    pieces = re.findall(r"\d+|\D+", text)
    return [(0, int(piece), "") if piece.isdigit() else (1, 0, piece) for piece in pieces]
