"""Latte for the caching engine, composed of the modules of `LatteTransformer3DModel`.

Its blocks attend in space, and to the text, and in time by turns; else they are those of PixArt. It predicts epsilon
and a variance, and its pipeline doubles the batch for guidance, the negative prompt first.

Legend: B batch, C latent channels, F frames, S tokens of a frame, N = F S tokens, H heads, D width.
"""

from dataclasses import replace

import torch
from diffusers import LatteTransformer3DModel
from torch import Tensor
from torch.nn import functional

from caching.models.basic import places
from caching.models.pixart import SingleNorm
from caching.models.state import Grid, Rotary, State


class LatteAdapter(SingleNorm):
    """Runs the model's own modules on patches, blocks of space and of time by turns, on one rank.

    A block takes all tokens as one sequence; only attention looks at frames, or places, one by one.
    """

    attends_to_all = False

    def __init__(self, transformer: LatteTransformer3DModel) -> None:
        super().__init__(transformer)
        pairs = zip(self.block_list, self.transformer.temporal_transformer_blocks, strict=True)
        self.block_list = [block for pair in pairs for block in pair]

    def rotary(self, grid: Grid, device: torch.device) -> Rotary:
        """What is added to each token first, and before the first block of time, `[N, D]` each."""
        frames, height, width = grid
        in_time = self.transformer.temp_pos_embed[0].to(device)
        if frames not in (1, len(in_time)):
            raise ValueError(f"this model makes videos of {len(in_time)} frames, not {frames}")
        in_space = places(self.transformer.pos_embed, (height, width), device)
        in_time = in_time if frames > 1 else torch.zeros_like(in_time[:1])  # which a single image is not given
        return in_space.repeat(frames, 1), in_time.repeat_interleave(height * width, 0)

    def embed_tokens(self, patches: Tensor, rotary: Rotary, grid: Grid | None) -> Tensor:
        """Tokens `[B, N, D]` with their places; frames are images to the model's convolution."""
        embed = self.transformer.pos_embed.proj
        if grid is None:
            tokens = self.embed_patches(patches, embed)
        else:
            frames = self.fold(patches.to(embed.weight.dtype), grid).transpose(1, 2).flatten(0, 1)
            by_frame = embed(frames).flatten(2).transpose(1, 2)
            tokens = by_frame.unflatten(0, (len(patches), -1)).flatten(1, 2)
        return (tokens + rotary[0]).to(tokens.dtype)

    def run(self, index: int, state: State) -> State:
        """Run one block on the tokens of `state`."""
        if index == 1:
            state = replace(state, tokens=state.tokens + state.rotary[0].to(state.tokens.dtype))
        return super().run(index, state)

    def attends_in_time(self, index: int) -> bool:
        """Whether a block's tokens attend to those at their place in other frames: every other one's."""
        return index % 2 == 1

    def attend(self, grid: Grid, layer: int, *states: Tensor) -> tuple[Tensor, Tensor]:
        """Attention `[B, H, N, D]` inside each frame, and in the next layer at each place through the frames."""
        in_time = self.attends_in_time(layer)
        axes = (0, 3, 1, 2, 4) if in_time else (0, 2, 1, 3, 4)  # [B, S, H, F, D], or [B, F, H, S, D]
        frames, batch = grid[0], len(states[0])
        query, key, value = (each.unflatten(2, (frames, -1)).permute(axes).flatten(0, 1) for each in states[:3])
        output = functional.scaled_dot_product_attention(query, key, value).unflatten(0, (batch, -1))
        back = (0, 2, 3, 1, 4) if in_time else (0, 2, 1, 3, 4)
        return output.permute(back).flatten(2, 3), states[3]
