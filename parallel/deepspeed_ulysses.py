"""Joint attention over the ranks by DeepSpeed-Ulysses (Jacobs et al., 2023), with text tokens that every rank holds.

Legend: B batch, N local image tokens, T image tokens of all ranks, L text tokens, H heads, P ranks, D head width.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from parallel.attention import kept_keys, lengthen
from parallel.collectives import CollectiveCounter
from parallel.kernels import Choice
from parallel.layout import Layout
from parallel.local_attention import Attention


@dataclass(frozen=True, kw_only=True)
class UlyssesAttention:
    """DeepSpeed's DistributedAttention for image tokens; each rank attends with its own heads of the text."""

    layout: Layout
    counter: CollectiveCounter
    kernels: Attention
    distributed_attention: Callable[..., Tensor]
    collectives: str = "all_to_all or all_gather"

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
        """Image tensors are `[B, H, N, D]`, text tensors `[B, H, L, D]` and the same on every rank; so are the outputs.

        Where `pieces`, the image tokens of each rank, differ, what is sent is filled up to the longest of them, and
        taken out again before the tokens attend.
        """

        def own_heads(states: Tensor) -> Tensor:
            return states.chunk(self.layout.ulysses, dim=1)[dist.get_rank()]

        length = max(pieces)
        self._book(query, text_query, length)
        text = [own_heads(states) for states in (text_query, text_key, text_value)]
        filled = [lengthen(states, 2, length).transpose(1, 2) for states in (query, key, value)]  # [B, N, H, D]
        text_outputs: list[Tensor] = []
        real, _ = kept_keys(self.layout, tuple(pieces), dist.get_rank(), query.device)[0]
        image = self.distributed_attention(*filled, 0, None, self.kernels, text, real, text_outputs)
        return image.transpose(1, 2)[:, :, : query.shape[2]], _join_heads(text_outputs[0])

    def _book(self, query: Tensor, text_query: Tensor, length: int) -> None:
        image_bytes = query[:, :, :1].nbytes * length
        for _ in ("query", "key", "value", "output"):
            self.counter.book("all_to_all", image_bytes, self.layout.ulysses)
        self.counter.book("all_gather", text_query.nbytes // self.layout.ulysses, self.layout.ulysses)


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    kernels: Attention,
    text: list[Tensor],
    real: Tensor,
    text_outputs: list[Tensor],
) -> Tensor:
    """Between the exchanges: all image tokens `[B, T, H / P, D]`, of which `real` are some, and the own heads' text."""
    joint_query, joint_key, joint_value = (
        torch.cat([image[:, real].transpose(1, 2), own], dim=2)
        for image, own in zip((query, key, value), text, strict=True)
    )
    output = kernels(joint_query, joint_key, joint_value)
    text_outputs.append(output[:, :, len(real) :])
    filled = torch.zeros_like(query)
    filled[:, real] = output[:, :, : len(real)].transpose(1, 2)
    return filled


def _join_heads(own: Tensor) -> Tensor:
    """The ranks' heads `[B, H / P, L, D]` together."""
    heads = [torch.empty_like(own, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
    dist.all_gather(heads, own.contiguous())
    return torch.cat(heads, dim=1)


def start(layout: Layout, counter: CollectiveCounter, choice: Choice) -> UlyssesAttention:
    """Works on the default process group, whose size must be the layout's.

    ValueError for a layout with Ring or guidance in parallel; ImportError if DeepSpeed is not installed.
    """
    if layout.ring > 1:
        raise ValueError(f"DeepSpeed's engine has no Ring: ring must be 1, not {layout.ring}.")
    if layout.cfg > 1:
        raise ValueError(f"DeepSpeed's engine takes all ranks for the tokens: cfg must be 1, not {layout.cfg}.")
    import deepspeed
    from deepspeed.sequence.layer import DistributedAttention

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    # Else it compiles an all-reduce in C++ on CPU, which Ulysses does not use, and waits for ever if one was cut off.
    setattr(deepspeed.ops, "__compatible_ops__", {})  # noqa: B010, as its types do not know it
    deepspeed.init_distributed(dist_backend=dist.get_backend(), auto_mpi_discovery=False, verbose=False)
    local: Any = _attend  # DeepSpeed declares a Module, but calls it like any function,
    group: Any = dist.group.WORLD  # and a ProcessGroup of its own making, but takes torch's
    attention = DistributedAttention(local, group, scatter_idx=2, gather_idx=1)
    kernels = Attention(choice)
    return UlyssesAttention(layout=layout, counter=counter, kernels=kernels, distributed_attention=attention)


def stop() -> None:
    """DeepSpeed keeps nothing beside the default process group, which stays with whoever made it."""
