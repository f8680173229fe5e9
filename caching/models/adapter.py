"""What the engine asks of a model: a transformer taken apart, so that any of its tokens can be computed alone.

Legend: B batch, N tokens, P values of a patch, D hidden width, L text tokens.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from caching.attention import Router
from caching.models.state import Grid, Rotary, State

Inputs = Mapping[str, Any]  # what a pipeline hands its transformer beside the latents: tensors, None, dictionaries
Processor = Callable[..., object]  # an attention processor; diffusers has no type for them


class AttentionModule(nn.Module):
    """What the attention modules of `diffusers` have in common, for types alone: their processor can be replaced."""

    processor: Processor
    set_processor: Callable[[Processor], None]


@dataclass(frozen=True, kw_only=True)
class FeedForward:
    """The two linear layers of a feed-forward; the first `leading` inputs of the second are no neurons of the first."""

    up: nn.Linear
    down: nn.Linear
    leading: int = 0


class Adapter(Protocol):
    """One model family, composed of the model's own modules. It holds no state of a generation."""

    block_list: list[nn.Module]
    """The blocks, in the order in which they run."""

    drops_padding: bool
    """Whether padded text tokens are dropped, so that attention needs no mask."""

    batch_dims: Mapping[str, int]
    """The dimension of the batch in those inputs where it is not the first one."""

    output_sign: int
    """1, or -1 where the pipeline negates what the model gives."""

    attends_to_all: bool
    """Whether each token attends to all others, in every layer."""

    predicts_epsilon: bool
    """Whether it gives epsilon, and maybe a variance behind it, and not a velocity."""

    text_first: bool
    """Whether the text stands before the image in the sequence that attends."""

    @property
    def num_blocks(self) -> int: ...

    @property
    def patch_values(self) -> int:
        """P, the values of a patch that goes in: latents, and what stands beside them along the channels.

        Where something does, the velocity has fewer: those of the latents alone.
        """
        ...

    @property
    def velocity_values(self) -> int:
        """The values of a patch of the velocity: as many as of latents alone."""
        ...

    @property
    def teacache_fit(self) -> tuple[float, ...] | None:
        """TeaCache's published polynomial, highest power first, if this is the model that it was fitted to."""
        ...

    @property
    def attentions(self) -> list[AttentionModule]:
        """The attention modules where tokens meet, in the order in which they run."""
        ...

    @property
    def cross_attentions(self) -> list[nn.Module]:
        """Modules where tokens look at nothing but the text; none in models of joint attention."""
        ...

    @property
    def called_alone(self) -> list[nn.Module]:
        """Modules of the blocks that are also called without their block, by `modulated`."""
        ...

    def processor(self, router: Router) -> Processor:
        """What the engine puts into `attentions`."""
        ...

    def attend(self, grid: Grid, layer: int, *states: Tensor) -> tuple[Tensor, Tensor]:
        """A layer's attention as `Router.route` has it, of all tokens on one rank, where not each attends to all."""
        ...

    def attends_in_time(self, index: int) -> bool:
        """Whether a block's tokens attend to those at their place in other frames alone."""
        ...

    def parts(self, index: int) -> list[nn.Module]:
        """The attention and feed-forward modules of a block that can be cached apart; none if it has no such parts."""
        ...

    def feed_forwards(self, index: int) -> list[FeedForward]:
        """Those of a block's image tokens."""
        ...

    def example_inputs(self, num_text_tokens: int, device: torch.device) -> Inputs:
        """Inputs of the right shapes, to count with."""
        ...

    def grid(self, sample: Tensor) -> Grid:
        """The token grid of latents as the model takes them."""
        ...

    def unfold(self, sample: Tensor) -> Tensor:
        """Latents, with what stands beside them, as patches `[B, N, P]`, in token order."""
        ...

    def fold(self, patches: Tensor, grid: Grid) -> Tensor:
        """The inverse of `unfold`, for patches of any number of channels."""
        ...

    def rotary(self, grid: Grid, device: torch.device) -> Rotary:
        """Where every token is."""
        ...

    def embed(
        self,
        patches: Tensor,
        rotary: Rotary,
        inputs: Inputs,
        *,
        text: Tensor | None = None,
        grid: Grid | None = None,
    ) -> State:
        """The state before the first block, of any patches `[B, N, P]`.

        `text`, if given, stands for the embedded prompt `[B, L, D]`, which is then not computed. `grid`, if given, says
        that these are all patches of a video, so that they may be embedded by the model's own convolution, to the bit.
        """
        ...

    def text_for_some(self, text: Tensor) -> Tensor:
        """The part of the text `[B, L, D]` that a pass of some of the tokens needs."""
        ...

    def run(self, index: int, state: State) -> State:
        """Run one block on the tokens of `state`."""
        ...

    def modulated(self, state: State) -> Tensor:
        """The first block's input `[B, N, D]` as its attention sees it, what TeaCache watches."""
        ...

    def head(self, state: State) -> Tensor:
        """The velocity as patches `[B, N, values of a patch of latents]`."""
        ...


class BlockAdapter:
    """What all adapters share: a `diffusers` transformer, whose classes declare no types of their parts."""

    transformer: Any
    block_list: list[Any]
    drops_padding = True
    batch_dims: Mapping[str, int] = MappingProxyType({})
    output_sign = 1
    attends_to_all = True
    predicts_epsilon = False
    text_first = False

    @property
    def num_blocks(self) -> int:
        return len(self.block_list)

    @property
    def called_alone(self) -> list[nn.Module]:
        return [self.block_list[0].norm1]

    @property
    def teacache_fit(self) -> tuple[float, ...] | None:
        """None is published for this input."""
        return None

    def attends_in_time(self, index: int) -> bool:
        """None of them does."""
        return False

    def attend(self, grid: Grid, layer: int, *states: Tensor) -> tuple[Tensor, Tensor]:
        """It is not asked: the group attends."""
        raise NotImplementedError


def run_blocks(adapter: Adapter, state: State, blocks: range | None = None) -> State:
    """Run every block of the model, or those named."""
    for index in range(adapter.num_blocks) if blocks is None else blocks:
        state = adapter.run(index, state)
    return state
