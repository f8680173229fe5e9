"""Logical shards: fixed contiguous token ranges, so that clusters do not depend on the number of GPUs.

Legend: T tokens of a video, N tokens of one rank, S logical shards of one rank, n tokens of the largest of them.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ShardMap:
    """Where logical shards begin and end, and which of them a rank owns.

    Shard s covers the tokens `s * T // shards` up to `(s + 1) * T // shards`, whatever the number of ranks; rank r of
    P owns the shards `r * shards // P` up to `(r + 1) * shards // P`, so with shards that do not divide some ranks own
    one more.
    """

    num_tokens: int  # T
    num_shards: int  # of the whole video
    world_size: int = 1
    rank: int = 0

    def __post_init__(self) -> None:
        if self.num_shards < self.world_size:
            raise ValueError(f"{self.num_shards} logical shards are too few for {self.world_size} ranks")
        if self.num_tokens < self.num_shards:
            raise ValueError(f"{self.num_tokens} tokens are too few for {self.num_shards} logical shards")

    def of_rank(self, rank: int) -> list[int]:
        """The sizes of a rank's shards, in tokens."""
        first, end = (owner * self.num_shards // self.world_size for owner in (rank, rank + 1))
        bounds = [shard * self.num_tokens // self.num_shards for shard in range(first, end + 1)]
        return [after - before for before, after in pairwise(bounds)]

    @property
    def sizes(self) -> list[int]:
        """Those of this rank's own."""
        return self.of_rank(self.rank)

    @property
    def pieces(self) -> list[int]:
        """The tokens of every rank."""
        return [sum(self.of_rank(rank)) for rank in range(self.world_size)]

    @property
    def smallest(self) -> int:
        """The tokens of the smallest shard of the video."""
        return self.num_tokens // self.num_shards

    def padded(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Token indices of each shard `[S, n]`, padded with its first token, and which of them are real `[S, n]`."""
        sizes = torch.tensor(self.sizes)
        starts = (sizes.cumsum(0) - sizes)[:, None]
        offsets = torch.arange(max(self.sizes))[None]
        valid = offsets < sizes[:, None]
        return (starts + offsets * valid).to(device), valid.to(device)

    def segments(self, length: int, device: torch.device) -> tuple[Tensor, list[Tensor]]:
        """Runs of `length` tokens inside each shard: that of each local token `[N]`, and the sizes of every rank's."""
        sizes = [_runs(self.of_rank(rank), length) for rank in range(self.world_size)]
        own = sizes[self.rank]
        run = torch.arange(len(own)).repeat_interleave(torch.tensor(own), output_size=sum(own))
        return run.to(device), [torch.tensor(of_rank, dtype=torch.float32).to(device) for of_rank in sizes]


def _runs(shard_sizes: list[int], length: int) -> list[int]:
    """The sizes of the runs of some shards: all of `length`, but for the last of each shard."""
    return [min(length, size - start) for size in shard_sizes for start in range(0, size, length)]
