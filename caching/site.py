"""What a generation's parts need to know of where they work."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from caching.attention import Attend, Router, Triple
from caching.group import Group
from caching.models.state import Grid, Rotary
from caching.shards import ShardMap

# Told of each layer: its number, image and text queries, keys and values, and what came out.
Listener = Callable[[int, Triple, Triple, tuple[Tensor, Tensor]], None]
# Told where the seconds go: the name of a part, whose work is the block.
Timed = Callable[[str], AbstractContextManager[object]]


def untimed(part: str) -> AbstractContextManager[object]:
    """For whoever does not ask."""
    return nullcontext()


@dataclass(frozen=True, kw_only=True)
class Site:
    """One generation on one rank."""

    group: Group
    router: Router
    num_tokens: int  # of the whole video
    num_steps: int
    rotary: Rotary  # of the local tokens
    grid: Grid | None = None  # of the local tokens, if they are all
    attend: Attend | None = None  # a layer's attention, where it is not the group's own
    timed: Timed = untimed
    model: int = 0  # the number of the model at work, of those that take over from each other

    @property
    def local_tokens(self) -> int:
        """The tokens of this rank."""
        return self.rotary[0].shape[0]

    def own(self, values: Tensor) -> Tensor:
        """Of a value of each token `[B, T]` those of the local ones `[B, N]`, which may be all that there are."""
        return values if values.shape[1] == self.local_tokens else self.group.shard(values[..., None])[..., 0]

    def shard_map(self, num_shards: int) -> ShardMap:
        """The logical shards of this video, and those that are this rank's."""
        return ShardMap(
            num_tokens=self.num_tokens,
            num_shards=num_shards,
            world_size=self.group.sequence_size,
            rank=self.group.sequence_rank,
        )

    @property
    def device(self) -> torch.device:
        return self.rotary[0].device

    def attend_to_all(self, num_text: int, listener: Listener | None = None) -> None:
        """Have the blocks that run next attend to all ranks' tokens and to the text, of `num_text` tokens."""

        def attend(layer: int, *states: Tensor) -> tuple[Tensor, Tensor]:
            outputs = self.attend(layer, *states) if self.attend else self.group.attend(*states)
            if listener is not None:
                query, key, value, text_query, text_key, text_value = states
                listener(layer, (query, key, value), (text_query, text_key, text_value), outputs)
            return outputs

        self.router.send(attend, num_text)
