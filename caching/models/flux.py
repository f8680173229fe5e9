"""FLUX for the caching engine, composed of the modules of `FluxTransformer2DModel`.

Legend: B batch, C latent channels, H height, W width (in tokens where a grid is meant), N tokens, P values of a patch,
D hidden width, L text tokens.
"""

import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor

from caching.models.adapter import Inputs
from caching.models.state import Grid, Rotary, State
from caching.models.two_stream import TwoStreamAdapter

PATCH = 2  # latent pixels a side; the pipeline packs them, the model sees the packed values as channels


class FluxAdapter(TwoStreamAdapter):
    """Runs the model's own modules on packed patches, any subset of them.

    Text tokens need no rotary embedding: the pipeline places all of them at the origin, where it is the identity.
    """

    published_fit = (4.98651651e02, -2.83781631e02, 5.58554382e01, -3.82021401, 2.64230861e-01)
    published_blocks = 57
    text_first = True

    def __init__(self, transformer: FluxTransformer2DModel) -> None:
        super().__init__(transformer)

    @property
    def velocity_values(self) -> int:
        """As many as go in."""
        return self.patch_values

    @property
    def patch_values(self) -> int:
        """P, the latent values of one patch."""
        return self.transformer.config.in_channels

    def example_inputs(self, num_text_tokens: int, device: torch.device) -> dict[str, Tensor]:
        """Inputs of the right shapes, to count with."""
        config = self.transformer.config
        inputs = dict(
            timestep=torch.ones(1, device=device),
            encoder_hidden_states=torch.ones(1, num_text_tokens, config.joint_attention_dim, device=device),
            pooled_projections=torch.ones(1, config.pooled_projection_dim, device=device),
        )
        return {**inputs, "guidance": torch.ones(1, device=device)} if config.guidance_embeds else inputs

    def grid(self, sample: Tensor) -> Grid:
        """The token grid of latents `[B, C, H, W]`; one frame."""
        return 1, sample.shape[2] // PATCH, sample.shape[3] // PATCH

    def unfold(self, sample: Tensor) -> Tensor:
        """Latents `[B, C, H, W]` as patches `[B, N, P]`, packed as the pipeline packs them."""
        (_, height, width), (batch, channels) = self.grid(sample), sample.shape[:2]
        blocks = sample.reshape(batch, channels, height, PATCH, width, PATCH)
        return blocks.permute(0, 2, 4, 1, 3, 5).reshape(batch, height * width, -1)

    def fold(self, patches: Tensor, grid: Grid) -> Tensor:
        """The inverse of `unfold`; what a grid has more frames than one stands below each other."""
        frames, height, width = grid
        blocks = patches.reshape(len(patches), frames * height, width, -1, PATCH, PATCH).permute(0, 3, 1, 4, 2, 5)
        return blocks.flatten(4, 5).flatten(2, 3)

    def rotary(self, grid: Grid, device: torch.device) -> Rotary:
        """Rotary cosines and sines of every token, each `[N, head width]`."""
        frames, height, width = (torch.arange(size, device=device) for size in grid)
        return self.transformer.pos_embed(torch.cartesian_prod(frames, height, width))

    def embed(
        self,
        patches: Tensor,
        rotary: Rotary,
        inputs: Inputs,
        *,
        text: Tensor | None = None,
        grid: Grid | None = None,
    ) -> State:
        """The state before the first block; `timestep` and `guidance` as the pipeline passes them, a thousandth.

        Both stay float32 until they are embedded: bfloat16 cannot tell neighbouring steps apart.
        """
        model = self.transformer
        tokens = model.x_embedder(patches.to(model.x_embedder.weight.dtype))
        levels = (inputs["timestep"], inputs.get("guidance"))
        scales = [level.float() * 1000 for level in levels if level is not None]
        modulation = model.time_text_embed(*scales, inputs["pooled_projections"])
        prompt = inputs["encoder_hidden_states"]
        embedded: Tensor = model.context_embedder(prompt) if text is None else text
        return State(tokens, embedded, modulation[:, None], rotary)

    def run(self, index: int, state: State) -> State:
        """Run one block on the tokens of `state`."""
        text, tokens = self.block_list[index](state.tokens, state.text, state.modulation[:, 0], state.rotary)
        return State(tokens, text, state.modulation, state.rotary)
