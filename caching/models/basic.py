"""What models of `BasicTransformerBlock` share: tokens that attend to each other, places that are added to them.

Legend: B batch, N tokens, P values of a patch, D hidden width, L text tokens.
"""

from dataclasses import replace
from typing import Any

import torch
from diffusers.models.embeddings import PatchEmbed, get_2d_sincos_pos_embed
from torch import Tensor, nn

from caching.attention import Router, SelfProcessor
from caching.models.adapter import AttentionModule, FeedForward
from caching.models.patches import VideoPatches, channels_first
from caching.models.state import Grid, Rotary, State


class BasicBlocks(VideoPatches):
    """Where such a model keeps its blocks and their modules, and how patches become tokens."""

    predicts_epsilon = True

    def __init__(self, transformer: nn.Module) -> None:
        self.transformer = transformer
        side = self.transformer.config.patch_size
        self.patch = (1, side, side)
        self.block_list = list(self.transformer.transformer_blocks)

    @property
    def velocity_values(self) -> int:
        """The values of a patch that comes out: epsilon and, after it, what the model says of its variance."""
        return self.transformer.out_channels * self.patch[1] * self.patch[2]

    @property
    def attentions(self) -> list[AttentionModule]:
        """The attention modules where tokens meet, in the order in which they run."""
        return [block.attn1 for block in self.block_list]

    @property
    def cross_attentions(self) -> list[nn.Module]:
        """Those where tokens look at the text; none where there is no text."""
        return [block.attn2 for block in self.block_list if block.attn2 is not None]

    def processor(self, router: Router) -> SelfProcessor:
        """What the engine puts into `attentions`."""
        return SelfProcessor(router)

    def parts(self, index: int) -> list[nn.Module]:
        """The attention and feed-forward modules of a block."""
        block = self.block_list[index]
        return [part for part in (block.attn1, block.attn2, block.ff) if part is not None]

    def feed_forwards(self, index: int) -> list[FeedForward]:
        """That of a block."""
        layers = self.block_list[index].ff.net
        return [FeedForward(up=layers[0].proj, down=layers[2])]

    def text_for_some(self, text: Tensor) -> Tensor:
        """The text `[B, L, D]` that a pass of some of the tokens needs: all of it."""
        return text

    def rotary(self, grid: Grid, device: torch.device) -> Rotary:
        """What the model adds to each token, `[N, D]`."""
        table = places(self.transformer.pos_embed, grid[1:], device)
        return table, table[:, :0]

    def embed_tokens(self, patches: Tensor, rotary: Rotary, grid: Grid | None) -> Tensor:
        """Tokens `[B, N, D]` with their places."""
        tokens = self.embed_patches(patches, self.transformer.pos_embed.proj, grid)
        return (tokens + rotary[0]).to(tokens.dtype)

    def run_block(self, index: int, state: State, **inputs: Any) -> State:
        """Run one block on the tokens of `state`, given what else it takes."""
        return replace(state, tokens=self.block_list[index](state.tokens, **inputs))

    def patches_of(self, values: Tensor) -> Tensor:
        """What the model's last layer gives, which has channels last, as patches `[B, N, P]`."""
        return channels_first(values, self.transformer.out_channels)


def places(embed: PatchEmbed, size: tuple[int, int], device: torch.device) -> Tensor:
    """The embedding of each place `[N, D]` on a grid of (height, width), as `PatchEmbed` adds it."""
    assert embed.pos_embed is not None  # these models all have one
    if size == (embed.height, embed.width):
        return embed.pos_embed[0].to(device)
    table: Any = get_2d_sincos_pos_embed(
        embed.pos_embed.shape[-1],
        size,
        base_size=embed.base_size,
        interpolation_scale=embed.interpolation_scale,
        device=device,
        output_type="pt",
    )
    return table.float()
