"""HunyuanVideo for the caching engine, composed of the modules of `HunyuanVideoTransformer3DModel`.

Legend: B batch, N tokens, P values of a patch, D hidden width, L text tokens.
"""

import torch
from diffusers import HunyuanVideoTransformer3DModel
from torch import Tensor

from caching.models.adapter import Inputs
from caching.models.state import Grid, Rotary, State
from caching.models.two_stream import TwoStreamVideo


class HunyuanVideoAdapter(TwoStreamVideo):
    """Runs the model's own modules on patches instead of a latent video, so that any tokens can be computed alone."""

    published_fit = (7.33226126e02, -4.01131952e02, 6.75869174e01, -3.14987800, 9.61237896e-02)
    published_blocks = 60

    def __init__(self, transformer: HunyuanVideoTransformer3DModel) -> None:
        super().__init__(transformer)
        config = self.transformer.config
        if config.image_condition_type is not None:
            raise ValueError("image-conditioned HunyuanVideo models are not supported; use the text-to-video model")

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

    def embed(
        self,
        patches: Tensor,
        rotary: Rotary,
        inputs: Inputs,
        *,
        text: Tensor | None = None,
        grid: Grid | None = None,
    ) -> State:
        """The state before the first block; `text`, if given, stands for the refined prompt, which is then skipped."""
        model, timestep, guidance = self.transformer, inputs["timestep"], inputs.get("guidance")
        modulation, _token_replace = model.time_text_embed(timestep, inputs["pooled_projections"], guidance)
        prompt, mask = inputs["encoder_hidden_states"], inputs["encoder_attention_mask"]
        refined: Tensor = model.context_embedder(prompt, timestep, mask) if text is None else text
        tokens = self.embed_patches(patches, model.x_embedder.proj)
        return State(tokens, refined, modulation[:, None], rotary)
