"""What a generation's parts need to know of where they work."""

from dataclasses import dataclass

import torch

from caching.attention import Router
from caching.group import Group
from caching.models.state import Rotary
from caching.shards import ShardMap


@dataclass(frozen=True, kw_only=True)
class Site:
    """One generation on one rank."""

    group: Group
    router: Router
    num_tokens: int  # of the whole video
    num_steps: int
    rotary: Rotary  # of the local tokens

    @property
    def local_tokens(self) -> int:
        """The tokens of this rank."""
        return self.rotary[0].shape[0]

    def shard_map(self, num_shards: int) -> ShardMap:
        """The logical shards of this video, and those that are this rank's."""
        return ShardMap(
            num_tokens=self.num_tokens, num_shards=num_shards, world_size=self.group.world_size, rank=self.group.rank
        )

    @property
    def device(self) -> torch.device:
        return self.rotary[0].device
