"""PixArt (alpha and Sigma) for the caching engine, composed of the modules of `PixArtTransformer2DModel`.

Its blocks attend to image tokens and to the text by turns, as Wan's do. It predicts epsilon and a variance, and its
pipeline doubles the batch for guidance, the negative prompt first.

Legend: B batch, N tokens, P values of a patch, D hidden width, L text tokens.
"""

import torch
from torch import Tensor

from caching.models.adapter import Inputs
from caching.models.basic import BasicBlocks
from caching.models.patches import ImagePatches
from caching.models.state import Grid, Rotary, State

DISCARD = -10000.0  # what the model adds to the logits of padded text


class SingleNorm(BasicBlocks):
    """Runs the model's own modules on patches; the text passes through all blocks as it is.

    A state's modulation holds the embedded time and, from it, what each block is modulated by: `[B, 1, 1 + 6, D]`.
    Where the text has a mask, each of its tokens carries what is added to its logits, as one more value.
    """

    drops_padding = False
    """It looks at the text apart, where a mask costs little and a doubled batch stays whole."""

    def example_inputs(self, num_text_tokens: int, device: torch.device) -> Inputs:
        """Inputs of the right shapes, to count with."""
        config = self.transformer.config
        width = config.caption_channels or config.cross_attention_dim
        inputs = dict(
            timestep=torch.ones(1, device=device),
            encoder_hidden_states=torch.ones(1, num_text_tokens, width, device=device),
        )
        if not self.transformer.adaln_single.emb.use_additional_conditions:
            return inputs
        size = {"resolution": torch.ones(1, 2, device=device), "aspect_ratio": torch.ones(1, 1, device=device)}
        return {**inputs, "added_cond_kwargs": size}

    def embed(
        self,
        patches: Tensor,
        rotary: Rotary,
        inputs: Inputs,
        *,
        text: Tensor | None = None,
        grid: Grid | None = None,
    ) -> State:
        """The state before the first block; `text`, if given, stands for the embedded prompt."""
        tokens = self.embed_tokens(patches, rotary, grid)
        told = dict(batch_size=len(tokens), hidden_dtype=tokens.dtype)
        levels, time = self.transformer.adaln_single(inputs["timestep"], inputs.get("added_cond_kwargs"), **told)
        modulation = torch.cat([time[:, None], levels.unflatten(-1, (6, -1))], dim=1)
        embedded = self._text(inputs) if text is None else text
        return State(tokens, embedded, modulation[:, None], (rotary[1], rotary[1]))

    def run(self, index: int, state: State) -> State:
        """Run one block on the tokens of `state`."""
        text, bias = self._parts_of(state.text)
        levels = state.modulation[:, 0, 1:].flatten(1)
        given = dict(encoder_hidden_states=text, encoder_attention_mask=bias)
        return self.run_block(index, state, timestep=levels, **given)

    def modulated(self, state: State) -> Tensor:
        """The first block's input `[B, N, D]` as its attention sees it, what TeaCache watches."""
        block = self.block_list[0]
        shift, scale = (block.scale_shift_table + state.modulation[:, 0, 1:])[:, :2].chunk(2, dim=1)
        return block.norm1(state.tokens) * (1 + scale) + shift

    def head(self, state: State) -> Tensor:
        """Epsilon and the variance as patches `[B, N, P]`."""
        model = self.transformer
        shift, scale = (model.scale_shift_table + state.modulation[:, 0, :1]).chunk(2, dim=1)
        return self.patches_of(model.proj_out(model.norm_out(state.tokens) * (1 + scale) + shift))

    def _text(self, inputs: Inputs) -> Tensor:
        """The embedded prompt `[B, L, D]`, or `[B, L, D + 1]` with what its mask adds to logits."""
        prompt, mask = inputs["encoder_hidden_states"], inputs.get("encoder_attention_mask")
        project = self.transformer.caption_projection
        text: Tensor = prompt if project is None else project(prompt)
        if mask is None:
            return text
        bias = (1 - mask.to(text.dtype)) * DISCARD
        return torch.cat([text, bias[:, :, None]], dim=2)

    def _parts_of(self, text: Tensor) -> tuple[Tensor, Tensor | None]:
        """The embedded prompt, and `[B, 1, L]` what is added to its logits, if anything is."""
        width = self.transformer.config.cross_attention_dim
        if text.shape[2] == width:
            return text, None
        return text[:, :, :width], text[:, None, :, width]


class PixArtAdapter(ImagePatches, SingleNorm):
    """All of it on images."""
