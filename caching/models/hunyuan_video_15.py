"""HunyuanVideo 1.5 for the caching engine, composed of the modules of `HunyuanVideo15Transformer3DModel`.

Beside the latents stand, along the channels, those of a first frame and a mask that says where it is: what goes in has
more channels than what comes out. The text has three parts: an image, glyphs and the prompt, in this order.

Legend: B batch, N tokens, P values of a patch, D hidden width, L text tokens, C channels of a text.
"""

import torch
from torch import Tensor

from caching.models.adapter import Inputs
from caching.models.state import Grid, Rotary, State
from caching.models.two_stream import TwoStreamVideo

PROMPT, GLYPHS, IMAGE = 0, 1, 2  # the kinds of text, as the model numbers them


class HunyuanVideo15Adapter(TwoStreamVideo):
    """Runs the model's own modules on patches instead of a latent video, so that any tokens can be computed alone."""

    def example_inputs(self, num_text_tokens: int, device: torch.device) -> dict[str, Tensor]:
        """Inputs of the right shapes, to count with: a prompt without glyphs, and no image."""
        config = self.transformer.config
        return dict(
            timestep=torch.ones(1, device=device),
            encoder_hidden_states=torch.ones(1, num_text_tokens, config.text_embed_dim, device=device),
            encoder_attention_mask=torch.ones(1, num_text_tokens, device=device),
            encoder_hidden_states_2=torch.ones(1, 0, config.text_embed_2_dim, device=device),
            encoder_attention_mask_2=torch.ones(1, 0, device=device),
            image_embeds=torch.ones(1, 0, config.image_embed_dim, device=device),
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
        """The state before the first block; `text`, if given, stands for the embedded texts, which are then skipped.

        The inputs hold no padding, and of an image that is none no tokens.
        """
        tokens = self.embed_patches(patches, self.transformer.x_embedder.proj, grid)
        modulation = self._time(inputs["timestep"], inputs.get("timestep_r"))[:, None]
        return State(tokens, self._text(inputs) if text is None else text, modulation, rotary)

    def _time(self, timestep: Tensor, until: Tensor | None) -> Tensor:
        """The embedded time `[B, D]`, and with it, in models that jump (MeanFlow), that until which they do.

        Times stay float32 until they are embedded: bfloat16 cannot tell neighbouring steps apart.
        """
        embed = self.transformer.time_embed
        dtype = embed.timestep_embedder.linear_1.weight.dtype
        time: Tensor = embed.timestep_embedder(embed.time_proj(timestep).to(dtype))
        return time if until is None else time + embed.timestep_embedder_r(embed.time_proj_r(until).to(dtype))

    def _text(self, inputs: Inputs) -> Tensor:
        """Image, glyphs and prompt, embedded and joined `[B, L, D]`; parts without any tokens add none."""
        model, mask = self.transformer, inputs["encoder_attention_mask"]
        prompt = model.context_embedder(inputs["encoder_hidden_states"], inputs["timestep"], mask)
        parts = [
            self._marked(model.image_embedder(inputs["image_embeds"]), IMAGE),
            self._marked(model.context_embedder_2(inputs["encoder_hidden_states_2"]), GLYPHS),
            self._marked(prompt, PROMPT),
        ]
        return torch.cat(parts, dim=1)

    def _marked(self, text: Tensor, kind: int) -> Tensor:
        """A text `[B, L, D]` with what the model adds to its kind."""
        kinds = torch.full(text.shape[:2], kind, device=text.device)
        return text + self.transformer.cond_type_embed(kinds)
