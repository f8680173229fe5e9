"""What caching asks of sequence parallelism, and the single process that needs none.

Legend: B batch, N local image tokens, L text tokens, H heads, D head width, C channels.
"""

from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F


class Group(Protocol):
    """The ranks that share the tokens of a pass; each holds a contiguous piece of them, as `divide` says.

    Where guidance runs in parallel there are as many such groups as passes, and each computes one pass of each step.
    """

    sequence_rank: int
    sequence_size: int
    num_parts: int
    """How many such groups there are."""
    part: int
    """Which of them this is."""

    def divide(self, pieces: list[int]) -> None:
        """Give each rank so many tokens from now on."""
        ...

    def shard(self, tokens: Tensor) -> Tensor:
        """This rank's piece `[B, N, C]` of all tokens."""
        ...

    def gather(self, values: Tensor, sizes: list[int] | None = None, dim: int = 1) -> Tensor:
        """The ranks' pieces, of `sizes` along `dim` (by default, their tokens), joined in rank order on every rank."""
        ...

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, text_query: Tensor, text_key: Tensor, text_value: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Joint attention of local image tokens `[B, H, N, D]` and text `[B, H, L, D]` to all tokens and the text."""
        ...

    def total(self, values: Tensor) -> Tensor:
        """The sum over the ranks, element by element."""
        ...

    def exchange(self, values: Tensor) -> list[Tensor]:
        """What the ranks with the same tokens in the other parts hold, and this one, in the order of the parts."""
        ...

    def mark(self, kind: str, step: int | None = None, left: int | None = None) -> None:
        """Name the kind of step that follows, its number, counted from 1, and how many follow it."""
        ...


class LocalGroup:
    """One process that holds every token."""

    sequence_rank = part = 0
    sequence_size = num_parts = 1

    def divide(self, pieces: list[int]) -> None:
        pass

    def shard(self, tokens: Tensor) -> Tensor:
        return tokens

    def gather(self, values: Tensor, sizes: list[int] | None = None, dim: int = 1) -> Tensor:
        return values

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, text_query: Tensor, text_key: Tensor, text_value: Tensor
    ) -> tuple[Tensor, Tensor]:
        joint_query, joint_key, joint_value = (
            torch.cat(pair, dim=2) for pair in ((query, text_query), (key, text_key), (value, text_value))
        )
        output = F.scaled_dot_product_attention(joint_query, joint_key, joint_value)
        return output[:, :, : query.shape[2]], output[:, :, query.shape[2] :]

    def total(self, values: Tensor) -> Tensor:
        return values

    def exchange(self, values: Tensor) -> list[Tensor]:
        return [values]

    def mark(self, kind: str, step: int | None = None, left: int | None = None) -> None:
        pass
