"""One rank among many that do not exist: shapes are as they would be, nothing is sent, and everything is booked.

Legend: B batch, N local image tokens, P ranks, L text tokens, H heads, D head width, C channels.
"""

import torch
from torch import Tensor

from parallel.attention import book_attention
from parallel.collectives import CollectiveCounter
from parallel.layout import Layout


class ImaginedGroup:
    """Stands in for rank 0's `SequenceGroup` on the meta device, where tensors have no values to be sent."""

    rank = sequence_rank = part = 0

    def __init__(self, layout: Layout) -> None:
        self.layout, self.counter, self.world_size = layout, CollectiveCounter(), layout.world_size
        self.sequence_size, self.num_parts = layout.sequence_size, layout.cfg
        self.pieces: list[int] = []

    def divide(self, pieces: list[int]) -> None:
        """Give each rank so many tokens from now on."""
        self.pieces = pieces

    def shard(self, tokens: Tensor) -> Tensor:
        """This rank's piece `[B, N, C]` of all tokens."""
        return tokens[:, : self.pieces[0]]

    def gather(self, values: Tensor, sizes: list[int] | None = None, dim: int = 1) -> Tensor:
        """As large as the pieces of all ranks."""
        sizes = sizes or self.pieces
        self.counter.book("all_gather", values.nbytes // values.shape[dim] * max(sizes), self.sequence_size)
        return values.new_empty([*values.shape[:dim], sum(sizes), *values.shape[dim + 1 :]])

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, text_query: Tensor, text_key: Tensor, text_value: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Outputs of the shapes of the queries, in one memory, as joint attention makes them of joint inputs."""
        book_attention(self.counter, self.layout, query, text_query, max(self.pieces))
        pairs = (query, text_query), (key, text_key), (value, text_value)
        joint_query, *_keys_and_values = (torch.cat(pair, dim=2) for pair in pairs)
        joint, num_tokens = torch.empty_like(joint_query), query.shape[2]
        return joint[:, :, :num_tokens], joint[:, :, num_tokens:]

    def total(self, values: Tensor) -> Tensor:
        """The values' own shape."""
        self.counter.book("all_reduce", values.nbytes, self.sequence_size)
        return values

    def exchange(self, values: Tensor) -> list[Tensor]:
        """One for each part."""
        self.counter.book("all_gather", values.nbytes, self.num_parts)
        return [values] * self.num_parts

    def mark(self, kind: str, step: int | None = None, left: int | None = None) -> None:
        """Name the kind of step that follows."""
        self.counter.mark(kind)
