"""What models of double-stream blocks, and maybe single-stream blocks after them, share in `diffusers`."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from caching.attention import JointProcessor, Router
from caching.models.adapter import AttentionModule, BlockAdapter, FeedForward
from caching.models.patches import VideoPatches
from caching.models.state import Grid, Rotary, State


class TwoStreamAdapter(BlockAdapter):
    """Where such a model keeps its blocks and their modules, and its head."""

    published_fit: tuple[float, ...] = ()  # TeaCache's polynomial for the full-size model
    published_blocks = 0  # how many blocks that model has

    def __init__(self, transformer: nn.Module) -> None:
        self.transformer = transformer
        single: Iterable[nn.Module] = getattr(transformer, "single_transformer_blocks", ())  # some models have none
        self.block_list = [*self.transformer.transformer_blocks, *single]

    @property
    def attentions(self) -> list[AttentionModule]:
        """The attention modules where tokens meet, in the order in which they run."""
        return [block.attn for block in self.block_list]

    @property
    def cross_attentions(self) -> list[nn.Module]:
        """Modules where tokens look at nothing but the text: these models have none."""
        return []

    def processor(self, router: Router) -> JointProcessor:
        """What the engine puts into `attentions`."""
        return JointProcessor(router)

    def text_for_some(self, text: Tensor) -> Tensor:
        """The text `[B, L, D]` that a pass of some of the tokens needs: one token, as the blocks want one.

        What it says is not used: keys and values of the text come from a dense step.
        """
        return text[:, :1]

    @property
    def teacache_fit(self) -> tuple[float, ...] | None:
        """TeaCache's published polynomial, highest power first, if this is the model that it was fitted to."""
        return self.published_fit if self.num_blocks == self.published_blocks else None

    def modulated(self, state: State) -> Tensor:
        """The first block's input `[B, N, D]` as its attention sees it, what TeaCache watches."""
        return self.block_list[0].norm1(state.tokens, emb=state.modulation[:, 0])[0]

    def parts(self, index: int) -> list[nn.Module]:
        """The attention and feed-forward modules of a double-stream block; none of a single-stream one."""
        block = self.block_list[index]
        return [block.attn, block.ff, block.ff_context] if hasattr(block, "ff") else []

    def feed_forwards(self, index: int) -> list[FeedForward]:
        """That of a block's image tokens; in a single-stream block attention comes before the neurons."""
        block = self.block_list[index]
        if hasattr(block, "ff"):
            return [FeedForward(up=block.ff.net[0].proj, down=block.ff.net[2])]
        leading = block.proj_out.in_features - block.proj_mlp.out_features
        return [FeedForward(up=block.proj_mlp, down=block.proj_out, leading=leading)]

    def head(self, state: State) -> Tensor:
        """The velocity as patches `[B, N, P]`."""
        return self.transformer.proj_out(self.transformer.norm_out(state.tokens, state.modulation[:, 0]))


class TwoStreamVideo(VideoPatches, TwoStreamAdapter):
    """What HunyuanVideo's versions share: how a video becomes patches, where they are, and how a block is called."""

    def __init__(self, transformer: nn.Module) -> None:
        super().__init__(transformer)
        config = self.transformer.config
        self.patch = (config.patch_size_t, config.patch_size, config.patch_size)

    def rotary(self, grid: Grid, device: torch.device) -> Rotary:
        """Rotary cosines and sines of every token, each `[N, head width]`."""
        size = [tokens * patch for tokens, patch in zip(grid, self.patch, strict=True)]
        return self.transformer.rope(torch.empty(1, 1, *size, device=device))

    def run(self, index: int, state: State) -> State:
        """Run one block on the tokens of `state`."""
        tokens, text = self.block_list[index](state.tokens, state.text, state.modulation[:, 0], None, state.rotary)
        return State(tokens, text, state.modulation, state.rotary)
