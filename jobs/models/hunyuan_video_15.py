"""HunyuanVideo 1.5, text to video: a guider says how many passes a step has, two where a negative prompt guides.

Prompts are read by a Qwen2.5-VL, and what is in quotes in them, letter by letter, by a ByT5. Beside the latents stand
those of a first frame and a mask that says where it is: zeros, where a video is made of text alone.

Legend: C latent channels, F H W latent frames, height and width, L text tokens, G tokens of glyphs.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import copy
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel

from jobs.models.family import (
    Configs,
    Dtype,
    GenerationDefaults,
    Json,
    Prompt,
    Sampling,
    StepCallback,
    Text,
    TokenCount,
)
from jobs.models.numbers import Numbers
from jobs.store.medium import VIDEO, Medium

if TYPE_CHECKING:
    from diffusers import ClassifierFreeGuidance, DiffusionPipeline
    from torch import Tensor, nn

    from parallel.rank_group import RankGroup

# What the pipeline takes of a prompt and of what its template puts after it, and of glyphs.
PROMPT_TOKENS = 1000
TEMPLATE_TAIL = 5
GLYPH_TOKENS = 256
# Height and width of videos in 16:9, by the side of a square of as many pixels that a model was trained for.
SIZES = {640: (480, 848), 960: (720, 1280)}
Pass = tuple[str, dict[str, "Tensor"]]  # as the guider calls it, and what of its text the transformer takes


class TransformerConfig(BaseModel):
    """A configuration may leave out what equals the default of its diffusers class: these are HunyuanVideo 1.5's."""

    num_attention_heads: int = 16
    attention_head_dim: int = 128
    num_layers: int = 54
    patch_size: int = 1
    patch_size_t: int = 1
    target_size: int = 640


class VaeConfig(BaseModel):
    """The same of the VAE."""

    spatial_compression_ratio: int = 16
    temporal_compression_ratio: int = 4
    latent_channels: int = 32


class GuiderConfig(BaseModel):
    """The same of the guider; models that are distilled for one pass have one that is off, or of scale 1."""

    guidance_scale: float = 7.5
    enabled: bool = True
    use_original_formulation: Literal[False] = False
    """Of guidance, in which a scale of 0 is none, and not 1."""

    @property
    def scale(self) -> float:
        return self.guidance_scale if self.enabled else 1.0


class HunyuanVideo15:
    """The `Family` of `HunyuanVideo15Pipeline`."""

    pipeline = "HunyuanVideo15Pipeline"
    medium: Medium = VIDEO
    classes: Mapping[str, str] = MappingProxyType(
        {
            "transformer": "HunyuanVideo15Transformer3DModel",
            "vae": "AutoencoderKLHunyuanVideo15",
            "guider": "ClassifierFreeGuidance",
        }
    )
    transformers: tuple[str, ...] = ("transformer",)
    text_encoders: tuple[str, ...] = ("text_encoder", "text_encoder_2")
    tokenizers: tuple[str, ...] = ("tokenizer", "tokenizer_2")
    loop: tuple[str, ...] = ("scheduler", "guider")
    vae_dtypes: Mapping[str, Dtype] = MappingProxyType({"bfloat16": "float16"})  # as its authors run it
    cross_attention = False
    doubles_batch = False
    predicts_epsilon = False
    decodes_tiles = True
    text_tokens = PROMPT_TOKENS + GLYPH_TOKENS

    def obstacle(self, index: Json) -> str | None:
        return None

    def prompt_obstacle(self, index: Json, prompt: str) -> str | None:
        return None

    def defaults(self, configs: Configs) -> GenerationDefaults:
        side = TransformerConfig.model_validate(configs.transformer).target_size
        height, width = SIZES.get(side, SIZES[640])
        scale = GuiderConfig.model_validate(configs.loop["guider"]).scale
        return GenerationDefaults(height=height, width=width, num_frames=121, fps=24, steps=50, guidance=scale)

    def guides(self, configs: Configs) -> frozenset[str]:
        is_guided = _is_guided(GuiderConfig.model_validate(configs.loop["guider"]).scale)
        return frozenset({"guidance", "negative_prompt"} if is_guided else ())

    def negative_prompt(self, sampling: Sampling) -> str | None:
        return sampling.negative_prompt or "" if _is_guided(sampling.guidance) else None

    def numbers(self, configs: Configs) -> Numbers:
        model, coder = TransformerConfig.model_validate(configs.transformer), VaeConfig.model_validate(configs.vae)
        return Numbers(
            heads=model.num_attention_heads,
            width=model.num_attention_heads * model.attention_head_dim,
            blocks=model.num_layers,
            patch=model.patch_size,
            patch_t=model.patch_size_t,
            spatial=coder.spatial_compression_ratio,
            temporal=coder.temporal_compression_ratio,
            latent_channels=coder.latent_channels,
            pixel_multiple=16,
        )

    def levels_by_token(self, index: Json) -> bool:
        return False

    def prompt_room(self, count: TokenCount, template: Json | None) -> int | None:
        return PROMPT_TOKENS - TEMPLATE_TAIL

    def encode(self, pipeline: "DiffusionPipeline", text: str, template: Json | None) -> Text:
        device, dtype = pipeline._execution_device, pipeline.transformer.dtype
        tokens, mask, glyphs, glyph_mask = pipeline.encode_prompt(text, device=device, dtype=dtype)
        return Text(tokens=tokens[:, mask[0].bool()], glyphs=glyphs[:, glyph_mask[0].bool()])

    def latent_shape(self, pipeline: "DiffusionPipeline", sampling: Sampling) -> tuple[int, ...]:
        spatial = pipeline.vae_scale_factor_spatial
        frames = (sampling.num_frames - 1) // pipeline.vae_scale_factor_temporal + 1
        return 1, pipeline.num_channels_latents, frames, sampling.height // spatial, sampling.width // spatial

    def set_timesteps(self, pipeline: "DiffusionPipeline", sampling: Sampling, steps: int) -> None:
        import numpy as np

        pipeline.scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.0, steps + 1)[:-1])

    def levels(self, pipeline: "DiffusionPipeline") -> list[float]:
        return pipeline.scheduler.sigmas[:-1].tolist()

    def stages(self, pipeline: "DiffusionPipeline", sampling: Sampling, steps: int) -> list[range]:
        return [range(steps)]

    def sample(
        self,
        pipeline: "DiffusionPipeline",
        latents: "Tensor",
        prompt: Prompt,
        sampling: Sampling,
        *,
        steps: int,
        on_step_end: StepCallback | None = None,
    ) -> "Tensor":
        """The pipeline's `__call__` has no callback, and rounds latents to the model's number format."""
        scheduler, guider, passes = pipeline.scheduler, _guider_of(pipeline, sampling), _passes_of(pipeline, prompt)
        self.set_timesteps(pipeline, sampling, steps)
        timesteps = scheduler.timesteps.to(pipeline._execution_device)
        scheduler.set_begin_index(0)
        with _exact_times(pipeline.transformer):
            for step, timestep in enumerate(timesteps, start=steps - len(timesteps)):
                guider.set_state(step=step, num_inference_steps=steps, timestep=timestep)
                velocities = _velocities(pipeline, latents, timestep, passes[: guider.num_conditions])
                latents = scheduler.step(guider.forward(*velocities).pred, timestep, latents, return_dict=False)[0]
                if on_step_end is not None:
                    latents = on_step_end(pipeline, step, timestep, {"latents": latents}).get("latents", latents)
        return latents

    def velocity(
        self, pipeline: "DiffusionPipeline", latents: "Tensor", level: float, prompt: Prompt, sampling: Sampling
    ) -> "Tensor":
        import torch

        time = torch.tensor(level * pipeline.scheduler.config.num_train_timesteps, device=pipeline._execution_device)
        with _exact_times(pipeline.transformer):
            velocities = _velocities(pipeline, latents, time, _passes_of(pipeline, prompt))
        return _guider_of(pipeline, sampling).forward(*(each.float() for each in velocities)).pred

    def decode(self, pipeline: "DiffusionPipeline", latents: "Tensor", group: "RankGroup") -> Iterator["Tensor"]:
        from parallel.vae import decode_all_frames

        latents = latents.to(pipeline.vae.dtype) / pipeline.vae.config.scaling_factor
        return decode_all_frames(pipeline.vae, latents, group)


def _is_guided(scale: float) -> bool:
    """As the guider sees it."""
    return not math.isclose(scale, 1.0)


def _guider_of(pipeline: "DiffusionPipeline", sampling: Sampling) -> "ClassifierFreeGuidance":
    """One for this video alone, of its scale; the pipeline's stays as it is."""
    guider = copy(pipeline.guider)
    guider.guidance_scale = sampling.guidance
    return guider


def _passes_of(pipeline: "DiffusionPipeline", prompt: Prompt) -> list[Pass]:
    """The passes that a step may have, of which the guider takes the first, or all."""
    import torch

    transformer, passes = pipeline.transformer, []
    image = torch.zeros(1, 0, transformer.config.image_embed_dim, dtype=transformer.dtype, device=transformer.device)
    for name, text in zip(pipeline.guider._input_predictions, prompt.texts, strict=False):
        assert text.glyphs is not None
        inputs = {
            "encoder_hidden_states": text.tokens,
            "encoder_attention_mask": text.tokens.new_ones(text.tokens.shape[:2]),
            "encoder_hidden_states_2": text.glyphs,
            "encoder_attention_mask_2": text.glyphs.new_ones(text.glyphs.shape[:2]),
            "image_embeds": image,
        }
        passes.append((name, inputs))
    return passes


def _velocities(
    pipeline: "DiffusionPipeline", latents: "Tensor", timestep: "Tensor", passes: list[Pass]
) -> list["Tensor"]:
    """What the transformer says in each pass of a step; beside the latents stand a first frame and its mask."""
    from torch.nn.functional import pad

    transformer = pipeline.transformer
    beside = transformer.config.in_channels - transformer.config.out_channels
    latents = latents.to(device=timestep.device, dtype=transformer.dtype)
    given = {"hidden_states": pad(latents, (*(0,) * 6, 0, beside)), "timestep": timestep.expand(len(latents))}
    velocities = []
    for name, inputs in passes:
        with transformer.cache_context(name):
            velocities.append(transformer(**given, **inputs, return_dict=False)[0])
    return velocities


@contextmanager
def _exact_times(transformer: "nn.Module") -> Iterator[None]:
    """In the block a timestep in float32 is rounded to the model's number format once it is sines, and not before.

    The model itself rounds these to that of the timestep, which would have to be the model's.
    """
    embedder, dtype = transformer.get_submodule("time_embed.timestep_embedder"), transformer.dtype
    handle = embedder.register_forward_pre_hook(lambda _module, inputs: (inputs[0].to(dtype), *inputs[1:]))
    try:
        yield
    finally:
        handle.remove()
