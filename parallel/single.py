"""One process that holds every token: nothing is sent, and every tensor stays where it is.

Legend: B batch, N image tokens, L text tokens, H heads, D head width, C channels.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NoReturn, TypeVar

import torch
from torch import Tensor

from parallel.collectives import Collective, CollectiveCounter
from parallel.kernels import Choice
from parallel.layout import Layout
from parallel.local_attention import Attention

T = TypeVar("T")


class LocalAttention:
    """Joint attention where one rank holds all tokens: nothing is sent."""

    collectives = "nothing"

    def __init__(self, choice: Choice | None = None) -> None:
        self.kernels = Attention(choice)

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        text_query: Tensor,
        text_key: Tensor,
        text_value: Tensor,
        pieces: list[int],
    ) -> tuple[Tensor, Tensor]:
        """Of image tokens `[B, H, N, D]` and text `[B, H, L, D]`."""
        pairs = (query, text_query), (key, text_key), (value, text_value)
        all_queries, all_keys, all_values = (torch.cat(pair, dim=2) for pair in pairs)
        joint, num_tokens = self.kernels(all_queries, all_keys, all_values), query.shape[2]
        return joint[:, :, :num_tokens], joint[:, :, num_tokens:]


class LocalEngine:
    """Makes it; there is nothing to set up."""

    def start(self, layout: Layout, counter: CollectiveCounter, choice: Choice) -> LocalAttention:
        return LocalAttention(choice)

    def stop(self) -> None: ...


class SingleGroup:
    """A `RankGroup` of one rank, which attends by the kernel of that choice. It needs no process group."""

    rank = sequence_rank = part = 0
    world_size = sequence_size = num_parts = 1
    num_ended = 0
    overdue = None

    def __init__(self, attention: Choice | None = None) -> None:
        self.layout, self.counter, self.attention = Layout(), CollectiveCounter(), LocalAttention(attention)

    def set_deadline(self, deadline_s: float) -> None:
        """There is nobody to wait for."""

    def divide(self, pieces: list[int]) -> None:
        """All tokens are this rank's."""

    def shard(self, tokens: Tensor) -> Tensor:
        """All tokens `[B, N, C]`."""
        return tokens

    def gather(self, values: Tensor, sizes: list[int] | None = None, dim: int = 1) -> Tensor:
        """The values themselves."""
        return values

    def gather_from_all(self, value: Tensor) -> list[Tensor]:
        """The value itself."""
        return [value]

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, text_query: Tensor, text_key: Tensor, text_value: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Joint attention of image tokens `[B, H, N, D]` and text `[B, H, L, D]`."""
        return self.attention(query, key, value, text_query, text_key, text_value, [query.shape[2]])

    def total(self, values: Tensor) -> Tensor:
        """The values themselves."""
        return values

    def exchange(self, values: Tensor) -> list[Tensor]:
        """The values themselves."""
        return [values]

    def broadcast(self, value: T | None) -> T:
        """The value itself."""
        if value is None:
            raise ValueError("rank 0 has something to broadcast, not None.")
        return value

    def send(self, values: Tensor) -> Callable[[], None]:
        """RuntimeError: this is rank 0, which receives."""
        _nobody()

    def receive(self, rank: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """RuntimeError: there is no other rank."""
        _nobody()

    def mark(self, kind: str, step: int | None = None, left: int | None = None) -> None:
        """Name the kind of step that follows, its number and how many follow it."""
        self.counter.mark(kind)
        self.attention.kernels.at_step(step, left)

    def guard(self) -> AbstractContextManager[None]:
        """Nothing fails by others."""
        return nullcontext()

    def expect(self, collective: Collective) -> None:
        """Nothing is waited for."""

    def arrived(self) -> None:
        """Nothing was."""

    def close(self) -> None:
        """There is nothing to take down."""


def _nobody() -> NoReturn:
    raise RuntimeError("a group of one rank has nobody to send to or to receive from")
