"""Wan for the caching engine, composed of the modules of `WanTransformer3DModel`.

Its blocks attend to image tokens and to the text by turns (cross-attention), where HunyuanVideo and FLUX attend to both
at once.

Legend: B batch, C latent channels, N tokens, P values of a patch, D hidden width, L text tokens, H heads.
"""

from functools import partial

import torch
from diffusers import WanTransformer3DModel
from torch import Tensor, nn

from caching.attention import Router, SelfProcessor
from caching.models.adapter import AttentionModule, FeedForward, Inputs
from caching.models.patches import VideoPatches, channels_first
from caching.models.state import Grid, Rotary, State


class WanAdapter(VideoPatches):
    """Runs the model's own modules on patches; the text passes through all blocks as it is.

    A state's modulation holds the embedded time and, from it, what each block is modulated by: `[B, 1, 1 + 6, D]`.
    Where each token has a noise level of its own (Wan 2.2 TI2V), there is one for each: `[B, N, 1 + 6, D]`; also where
    all are alike, because a product of one row is rounded otherwise than that of many.
    """

    def __init__(self, transformer: WanTransformer3DModel) -> None:
        self.transformer = transformer
        config = self.transformer.config
        if config.image_dim is not None or config.in_channels != config.out_channels:
            raise ValueError("image-conditioned Wan models are not supported; use a text-to-video model")
        self.patch = tuple(config.patch_size)
        self.block_list = list(self.transformer.blocks)

    @property
    def attentions(self) -> list[AttentionModule]:
        """The attention modules where tokens meet, in the order in which they run."""
        return [block.attn1 for block in self.block_list]

    @property
    def cross_attentions(self) -> list[nn.Module]:
        """Those where tokens look at the text."""
        return [block.attn2 for block in self.block_list]

    def processor(self, router: Router) -> SelfProcessor:
        """What the engine puts into `attentions`."""
        return SelfProcessor(router)

    def parts(self, index: int) -> list[nn.Module]:
        """The attention and feed-forward modules of a block."""
        block = self.block_list[index]
        return [block.attn1, block.attn2, block.ffn]

    def feed_forwards(self, index: int) -> list[FeedForward]:
        """That of a block."""
        layers = self.block_list[index].ffn.net
        return [FeedForward(up=layers[0].proj, down=layers[2])]

    def example_inputs(self, num_text_tokens: int, device: torch.device) -> dict[str, Tensor]:
        """Inputs of the right shapes, to count with."""
        width = self.transformer.config.text_dim
        return dict(
            timestep=torch.ones(1, device=device),
            encoder_hidden_states=torch.ones(1, num_text_tokens, width, device=device),
        )

    def rotary(self, grid: Grid, device: torch.device) -> Rotary:
        """Rotary cosines and sines of every token, each `[N, head width]`."""
        size = [tokens * patch for tokens, patch in zip(grid, self.patch, strict=True)]
        cosines, sines = self.transformer.rope(torch.empty(1, 1, *size, device=device))
        return cosines[0, :, 0].float(), sines[0, :, 0].float()

    def embed(
        self,
        patches: Tensor,
        rotary: Rotary,
        inputs: Inputs,
        *,
        text: Tensor | None = None,
        grid: Grid | None = None,
    ) -> State:
        """The state before the first block; `text`, if given, stands for the embedded prompt.

        `timestep` is one noise level `[B]`, or that of each of these tokens `[B, N]`.
        """
        model, timestep = self.transformer, inputs["timestep"]
        length = timestep.shape[1] if timestep.ndim > 1 else None
        embed = partial(model.condition_embedder, timestep_seq_len=length)
        time, levels, prompt, _image = embed(timestep.flatten(), inputs["encoder_hidden_states"])
        by_block = levels.unflatten(-1, (6, -1))
        modulation = torch.cat([time.unsqueeze(-2), by_block], dim=-2)
        tokens = self.embed_patches(patches, model.patch_embedding, grid)
        by_token = modulation if length is not None else modulation[:, None]
        return State(tokens, prompt if text is None else text, by_token, rotary)

    def text_for_some(self, text: Tensor) -> Tensor:
        """The text `[B, L, D]` that a pass of some of the tokens needs: all of it."""
        return text

    def run(self, index: int, state: State) -> State:
        """Run one block on the tokens of `state`."""
        tokens = self.block_list[index](state.tokens, state.text, state.modulation[:, :, 1:], state.rotary)
        return State(tokens, state.text, state.modulation, state.rotary)

    def modulated(self, state: State) -> Tensor:
        """The first block's input `[B, N, D]` as its attention sees it, what TeaCache watches."""
        block = self.block_list[0]
        shift, scale = (block.scale_shift_table + state.modulation[:, :, 1:].float()).unbind(2)[:2]
        return block.norm1(state.tokens.float()) * (1 + scale) + shift

    def head(self, state: State) -> Tensor:
        """The velocity as patches `[B, N, P]`; the model puts channels last."""
        model = self.transformer
        shift, scale = (model.scale_shift_table + state.modulation[:, :, :1]).unbind(2)
        tokens = (model.norm_out(state.tokens.float()) * (1 + scale) + shift).type_as(state.tokens)
        return channels_first(model.proj_out(tokens), model.config.out_channels)
