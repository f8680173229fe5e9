"""HunyuanVideo for the caching engine, composed of the modules of `HunyuanVideoTransformer3DModel`.

Legend: B batch, C latent channels, F frames, H height, W width (in tokens where a grid is meant), N tokens,
P values of a patch (C x patch volume), D hidden width, L text tokens.
"""

from math import prod
from typing import Any

import torch
from diffusers import HunyuanVideoTransformer3DModel
from torch import Tensor
from torch.nn import functional as F

from caching.models.state import Grid, Rotary, State
from caching.models.two_stream import TwoStreamAdapter


class HunyuanVideoAdapter(TwoStreamAdapter):
    """Runs the model's own modules on patches instead of a latent video, so that any tokens can be computed alone."""

    published_fit = (7.33226126e02, -4.01131952e02, 6.75869174e01, -3.14987800, 9.61237896e-02)
    published_blocks = 60

    def __init__(self, transformer: HunyuanVideoTransformer3DModel) -> None:
        super().__init__(transformer)
        config = self.transformer.config
        if config.image_condition_type is not None:
            raise ValueError("image-conditioned HunyuanVideo models are not supported; use the text-to-video model")
        self.patch = (config.patch_size_t, config.patch_size, config.patch_size)

    @property
    def patch_values(self) -> int:
        """P, the latent values of one patch."""
        return self.transformer.config.in_channels * prod(self.patch)

    def example_inputs(self, num_text_tokens: int, device: torch.device) -> dict[str, Tensor]:
        """Inputs of the right shapes, to count with."""
        config = self.transformer.config
        return dict(
            timestep=torch.ones(1, device=device),
            encoder_hidden_states=torch.ones(1, num_text_tokens, config.text_embed_dim, device=device),
            encoder_attention_mask=torch.ones(1, num_text_tokens, device=device),
            pooled_projections=torch.ones(1, config.pooled_projection_dim, device=device),
            guidance=torch.ones(1, device=device),
        )

    def grid(self, sample: Tensor) -> Grid:
        """The token grid of a latent video `[B, C, F, H, W]`."""
        frames, height, width = (size // patch for size, patch in zip(sample.shape[2:], self.patch, strict=True))
        return frames, height, width

    def unfold(self, sample: Tensor) -> Tensor:
        """A latent video `[B, C, F, H, W]` as patches `[B, N, P]`, in token order."""
        batch, channels = sample.shape[:2]
        (frames, height, width), (pt, ph, pw) = self.grid(sample), self.patch
        blocks = sample.reshape(batch, channels, frames, pt, height, ph, width, pw)
        return blocks.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(batch, frames * height * width, -1)

    def fold(self, patches: Tensor, grid: Grid) -> Tensor:
        """The inverse of `unfold`."""
        (frames, height, width), (pt, ph, pw) = grid, self.patch
        blocks = patches.reshape(len(patches), frames, height, width, -1, pt, ph, pw).permute(0, 4, 1, 5, 2, 6, 3, 7)
        return blocks.flatten(6, 7).flatten(4, 5).flatten(2, 3)

    def rotary(self, grid: Grid, device: torch.device) -> Rotary:
        """Rotary cosines and sines of every token, each `[N, head width]`."""
        size = [tokens * patch for tokens, patch in zip(grid, self.patch, strict=True)]
        return self.transformer.rope(torch.empty(1, 1, *size, device=device))

    def embed(
        self,
        patches: Tensor,
        rotary: Rotary,
        *,
        timestep: Tensor,
        encoder_hidden_states: Tensor,
        encoder_attention_mask: Tensor,
        pooled_projections: Tensor,
        guidance: Tensor | None = None,
        text: Tensor | None = None,
        **_: Any,
    ) -> State:
        """The state before the first block; `text`, if given, stands for the refined prompt, which is then skipped."""
        model = self.transformer
        modulation, _token_replace = model.time_text_embed(timestep, pooled_projections, guidance)
        refined: Tensor = (
            model.context_embedder(encoder_hidden_states, timestep, encoder_attention_mask) if text is None else text
        )
        projection = model.x_embedder.proj
        tokens = F.linear(patches.to(projection.weight.dtype), projection.weight.flatten(1), projection.bias)
        return State(tokens, refined, modulation, rotary)

    def run(self, index: int, state: State) -> State:
        """Run one block on the tokens of `state`."""
        tokens, text = self.block_list[index](state.tokens, state.text, state.modulation, None, state.rotary)
        return State(tokens, text, state.modulation, state.rotary)
