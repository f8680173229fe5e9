"""What all ask of the ranks that share one video, whether they are many or one.

Legend: B batch, N local image tokens (not the same on every rank), P ranks, L text tokens, H heads, D head width,
C channels.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from parallel.collectives import Collective, CollectiveCounter
from parallel.layout import Layout

T = TypeVar("T")


class RankGroup(Protocol):
    """The ranks that share one video; each holds a contiguous piece of its tokens, as `divide` says.

    All ranks call the same methods in the same order, but for `send` and `receive`. Where guidance runs in parallel,
    tokens are shared by the ranks of each part: `divide` to `total` concern these alone.
    """

    layout: Layout
    rank: int
    world_size: int
    sequence_rank: int
    sequence_size: int
    num_parts: int
    part: int
    counter: CollectiveCounter

    @property
    def num_ended(self) -> int:
        """The collectives that have come to their end. This and `overdue` are also read by other threads."""
        ...

    @property
    def overdue(self) -> str | None:
        """One sentence on a collective past its deadline, where nothing is raised as the host does not wait for it."""
        ...

    def set_deadline(self, deadline_s: float) -> None:
        """The seconds that a collective may wait for its ranks from now on."""
        ...

    def divide(self, pieces: list[int]) -> None:
        """Give each rank so many tokens from now on."""
        ...

    def shard(self, tokens: Tensor) -> Tensor:
        """This rank's piece `[B, N, C]` of all tokens."""
        ...

    def gather(self, values: Tensor, sizes: list[int] | None = None, dim: int = 1) -> Tensor:
        """The ranks' pieces, of `sizes` along `dim` (by default, their tokens), joined in rank order on every rank."""
        ...

    def gather_from_all(self, value: Tensor) -> list[Tensor]:
        """What every rank of the video holds, of one shape, in rank order on every rank."""
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

    def broadcast(self, value: T | None) -> T:
        """What rank 0 holds, on every rank; the others pass None."""
        ...

    def send(self, values: Tensor) -> Callable[[], None]:
        """Begin to send a tensor to rank 0; what is returned waits until it has arrived. Not on rank 0."""
        ...

    def receive(self, rank: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """On rank 0: the next tensor that another rank sends, of this shape and type."""
        ...

    def mark(self, kind: str, step: int | None = None, left: int | None = None) -> None:
        """Name the kind of step that follows, its number, counted from 1, and how many follow it."""
        ...

    def guard(self) -> AbstractContextManager[None]:
        """Where the block fails by a collective that others called for it: `parallel.watch.RankLost`."""
        ...

    def expect(self, collective: Collective) -> None:
        """From now on, until `arrived`, this rank waits in a collective that others have called, and booked, for it."""
        ...

    def arrived(self) -> None:
        """The expected collective is over."""
        ...

    def close(self) -> None:
        """Leave the group."""
        ...
