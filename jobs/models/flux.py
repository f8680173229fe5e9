"""FLUX.1: images of one pass a step, distilled for guidance, and of a second one where a negative prompt guides, too.

Prompts go through a T5, and through a CLIP that gives one feature of all.

Legend: C latent channels, H W latent height and width, N tokens of two by two latents, L text tokens.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from pydantic import BaseModel

from jobs.models.autoencoder_kl import VaeConfig, flat_numbers
from jobs.models.family import (
    Configs,
    GenerationDefaults,
    Json,
    Prompt,
    Sampling,
    Text,
    TokenCount,
    guided,
    sequence_length,
)
from jobs.models.flow import OfFlow
from jobs.models.numbers import Numbers
from jobs.store.medium import IMAGE, Medium

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor


TEXT_TOKENS = 512  # to which the pipeline fills prompts up
END_OF_TEXT = 1
PATCH = 2  # latents a side of a token


class TransformerConfig(BaseModel):
    """A configuration may leave out what equals the default of its diffusers class: these are FLUX's."""

    in_channels: int = 64
    num_attention_heads: int = 24
    attention_head_dim: int = 128
    num_layers: int = 19
    num_single_layers: int = 38
    guidance_embeds: bool = False


class Flux(OfFlow):
    """The `Family` of `FluxPipeline`."""

    pipeline = "FluxPipeline"
    medium: Medium = IMAGE
    classes: Mapping[str, str] = MappingProxyType({"transformer": "FluxTransformer2DModel", "vae": "AutoencoderKL"})
    text_encoders: tuple[str, ...] = ("text_encoder", "text_encoder_2")
    tokenizers: tuple[str, ...] = ("tokenizer_2", "tokenizer")
    text_tokens = TEXT_TOKENS
    cross_attention = False
    doubles_batch = False

    def defaults(self, configs: Configs) -> GenerationDefaults:
        """Without an embedded scale it is distilled for few steps, too (FLUX.1-schnell)."""
        embedded = TransformerConfig.model_validate(configs.transformer).guidance_embeds
        steps, scale = (50, 3.5) if embedded else (4, 0.0)
        return GenerationDefaults(height=1024, width=1024, steps=steps, guidance=scale)

    def guides(self, configs: Configs) -> frozenset[str]:
        embedded = TransformerConfig.model_validate(configs.transformer).guidance_embeds
        return frozenset({"true_cfg_scale", "negative_prompt", *(["guidance"] if embedded else [])})

    def negative_prompt(self, sampling: Sampling) -> str | None:
        return sampling.negative_prompt or "" if (sampling.true_cfg_scale or 1.0) > 1 else None

    def numbers(self, configs: Configs) -> Numbers:
        model, coder = TransformerConfig.model_validate(configs.transformer), VaeConfig.model_validate(configs.vae)
        return flat_numbers(
            coder,
            heads=model.num_attention_heads,
            head_width=model.attention_head_dim,
            blocks=model.num_layers + model.num_single_layers,
            patch=PATCH,
            latent_channels=model.in_channels // PATCH**2,
        )

    def prompt_room(self, count: TokenCount, template: Json | None) -> int | None:
        return sequence_length(template, TEXT_TOKENS) - END_OF_TEXT

    def encode(self, pipeline: "DiffusionPipeline", text: str, template: Json | None) -> Text:
        length = sequence_length(template, TEXT_TOKENS)
        tokens, pooled, _ = pipeline.encode_prompt(text, device=pipeline._execution_device, max_sequence_length=length)
        return Text(tokens=tokens, pooled=pooled)

    def latent_shape(self, pipeline: "DiffusionPipeline", sampling: Sampling) -> tuple[int, ...]:
        channels, scale = pipeline.transformer.config.in_channels // PATCH**2, pipeline.vae_scale_factor
        return 1, channels, sampling.height // scale, sampling.width // scale

    def set_timesteps(self, pipeline: "DiffusionPipeline", sampling: Sampling, steps: int) -> None:
        """A scheduler may shift them by the number of tokens: of all, where a rank has some."""
        import numpy as np
        from diffusers.pipelines.flux.pipeline_flux import calculate_shift

        _, _, height, width = self.latent_shape(pipeline, sampling)
        config, shift = pipeline.scheduler.config, {}
        if config.get("use_dynamic_shifting"):
            lengths = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
            shifts = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
            shift["mu"] = calculate_shift(height * width // PATCH**2, *lengths, *shifts)
        pipeline.scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), **shift)

    def predict(
        self,
        pipeline: "DiffusionPipeline",
        latents: "Tensor",
        timestep: "Tensor",
        prompt: Prompt,
        sampling: Sampling,
    ) -> "Tensor":
        """The transformer takes latents `[1, C, H, W]` as tokens `[1, N, 4 C]`."""
        import torch

        transformer, (_, channels, height, width) = pipeline.transformer, latents.shape
        tokens = pipeline._pack_latents(latents.to(transformer.dtype), 1, channels, height, width)
        places = pipeline._prepare_latent_image_ids(1, height // PATCH, width // PATCH, latents.device, torch.float32)
        embedded = None
        if transformer.config.guidance_embeds:
            embedded = torch.full([1], sampling.guidance, device=latents.device, dtype=torch.float32)
        velocities = []
        for name, text in zip(("cond", "uncond"), prompt.texts, strict=False):
            with transformer.cache_context(name):
                velocity = transformer(
                    hidden_states=tokens,
                    timestep=timestep.expand(1) / 1000,
                    guidance=embedded,
                    pooled_projections=text.pooled,
                    encoder_hidden_states=text.tokens,
                    txt_ids=torch.zeros(text.tokens.shape[1], 3, device=latents.device),
                    img_ids=places,
                    return_dict=False,
                )[0]
            velocities.append(velocity)
        scale = pipeline.vae_scale_factor
        velocity = guided(velocities, sampling.true_cfg_scale)
        return pipeline._unpack_latents(velocity, height * scale, width * scale, scale)
