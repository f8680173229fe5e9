"""Logical shards: fixed contiguous token ranges, so that clusters do not depend on the number of GPUs.

Legend: N tokens of one rank, S logical shards of one rank, n tokens of the largest shard.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ShardMap:
    """Where a rank's logical shards begin and end; every rank has the same structure.

    Shard s of a video of T tokens covers tokens `s * T // shards` up to `(s + 1) * T // shards`. A rank owns
    `shards / world_size` of them; because T is a multiple of the world size, its own boundaries are those of rank 0.
    """

    num_tokens: int  # of the whole video
    num_shards: int  # of the whole video
    world_size: int = 1

    def __post_init__(self) -> None:
        if self.num_shards % self.world_size:
            raise ValueError(f"{self.num_shards} logical shards cannot be split evenly over {self.world_size} ranks")
        if self.num_tokens % self.world_size:
            raise ValueError(f"{self.num_tokens} tokens cannot be split evenly over {self.world_size} ranks")

    @property
    def per_rank(self) -> int:
        return self.num_shards // self.world_size

    @property
    def bounds(self) -> list[int]:
        """The rank's `S + 1` boundaries, counted from its first token."""
        return [shard * self.num_tokens // self.num_shards for shard in range(self.per_rank + 1)]

    @property
    def sizes(self) -> list[int]:
        return [end - start for start, end in zip(self.bounds, self.bounds[1:], strict=False)]

    def padded(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Token indices of each shard `[S, n]`, padded with its first token, and which of them are real `[S, n]`."""
        starts = torch.tensor(self.bounds[:-1])[:, None]
        offsets = torch.arange(max(self.sizes))[None]
        valid = offsets < torch.tensor(self.sizes)[:, None]
        return (starts + offsets * valid).to(device), valid.to(device)

    def segments(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        """Runs of `length` tokens inside each shard: the run of each token `[N]`, and the size of each run `[M]`."""
        runs, sizes = [], []
        for size in self.sizes:
            place = torch.arange(size) // length
            runs.append(place + len(sizes))
            sizes.extend(place.bincount().tolist())
        return torch.cat(runs).to(device), torch.tensor(sizes, dtype=torch.float32).to(device)
