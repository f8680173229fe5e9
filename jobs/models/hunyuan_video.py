"""HunyuanVideo: one guidance-distilled pass a step, and a second one where a negative prompt guides, too.

It has a causal video VAE, and takes prompts by a LLaMA and a CLIP.

Legend: C latent channels, F H W latent frames, height and width, L text tokens.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

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
    guided,
)
from jobs.models.numbers import Numbers
from jobs.store.medium import VIDEO, Medium

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor

    from parallel.rank_group import RankGroup


# What encode_prompt of diffusers' pipeline_hunyuan_video takes of a prompt and of what its template puts after it.
PROMPT_TOKENS = 256
DEFAULT_TEMPLATE_TAIL = 1


class TransformerConfig(BaseModel):
    """A configuration may leave out what equals the default of its diffusers class: these are HunyuanVideo's."""

    num_attention_heads: int = 24
    attention_head_dim: int = 128
    num_layers: int = 20
    num_single_layers: int = 40
    patch_size: int = 2
    patch_size_t: int = 1
    guidance_embeds: bool = True


class VaeConfig(BaseModel):
    """The same of the VAE."""

    spatial_compression_ratio: int = 8
    temporal_compression_ratio: int = 4
    latent_channels: int = 16


class HunyuanVideo:
    """The `Family` of `HunyuanVideoPipeline`."""

    pipeline = "HunyuanVideoPipeline"
    medium: Medium = VIDEO
    classes: Mapping[str, str] = MappingProxyType(
        {"transformer": "HunyuanVideoTransformer3DModel", "vae": "AutoencoderKLHunyuanVideo"}
    )
    transformers: tuple[str, ...] = ("transformer",)
    text_encoders: tuple[str, ...] = ("text_encoder", "text_encoder_2")
    tokenizers: tuple[str, ...] = ("tokenizer", "tokenizer_2")
    loop: tuple[str, ...] = ("scheduler",)
    # As its authors run it: float16 has three binary digits more, and the VAE needs no wider range.
    vae_dtypes: Mapping[str, Dtype] = MappingProxyType({"bfloat16": "float16"})
    text_tokens = PROMPT_TOKENS
    cross_attention = False
    doubles_batch = False
    predicts_epsilon = False
    decodes_tiles = True

    def obstacle(self, index: Json) -> str | None:
        return None

    def prompt_obstacle(self, index: Json, prompt: str) -> str | None:
        return None

    def defaults(self, configs: Configs) -> GenerationDefaults:
        return GenerationDefaults(height=720, width=1280, num_frames=129, fps=24, steps=50, guidance=6.0)

    def guides(self, configs: Configs) -> frozenset[str]:
        embedded = TransformerConfig.model_validate(configs.transformer).guidance_embeds
        return frozenset({"true_cfg_scale", "negative_prompt", *(["guidance"] if embedded else [])})

    def negative_prompt(self, sampling: Sampling) -> str | None:
        return sampling.negative_prompt or "" if (sampling.true_cfg_scale or 1.0) > 1 else None

    def numbers(self, configs: Configs) -> Numbers:
        model, coder = TransformerConfig.model_validate(configs.transformer), VaeConfig.model_validate(configs.vae)
        return Numbers(
            heads=model.num_attention_heads,
            width=model.num_attention_heads * model.attention_head_dim,
            blocks=model.num_layers + model.num_single_layers,
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
        if template is None:
            return PROMPT_TOKENS - DEFAULT_TEMPLATE_TAIL
        text, crop_start = template.get("template"), template.get("crop_start")
        if not (isinstance(text, str) and isinstance(crop_start, int)):
            return None  # the pipeline finds out where the prompt starts
        return PROMPT_TOKENS + crop_start - count(text.replace("{}", ""))

    def encode(self, pipeline: "DiffusionPipeline", text: str, template: Json | None) -> Text:
        from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE

        tokens, pooled, mask = pipeline.encode_prompt(
            text, prompt_template=template or DEFAULT_PROMPT_TEMPLATE, device=pipeline.transformer.device
        )
        return Text(tokens=tokens[:, : max(1, int(mask.sum()))], pooled=pooled)

    def latent_shape(self, pipeline: "DiffusionPipeline", sampling: Sampling) -> tuple[int, ...]:
        spatial = pipeline.vae_scale_factor_spatial
        frames = (sampling.num_frames - 1) // pipeline.vae_scale_factor_temporal + 1
        return 1, pipeline.transformer.config.in_channels, frames, sampling.height // spatial, sampling.width // spatial

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
        cond, uncond = prompt.cond, prompt.uncond
        negative = (
            {}
            if uncond is None
            else {
                "negative_prompt_embeds": uncond.tokens,
                "negative_pooled_prompt_embeds": uncond.pooled,
                "negative_prompt_attention_mask": _mask(uncond, latents),
                "true_cfg_scale": sampling.true_cfg_scale,
            }
        )
        return pipeline.__call__(  # which diffusers declares of each pipeline, and not of all
            latents=latents,
            prompt_embeds=cond.tokens,
            pooled_prompt_embeds=cond.pooled,
            prompt_attention_mask=_mask(cond, latents),
            height=sampling.height,
            width=sampling.width,
            num_frames=sampling.num_frames,
            num_inference_steps=steps,
            guidance_scale=sampling.guidance,
            output_type="latent",
            callback_on_step_end=on_step_end,
            return_dict=False,
            **negative,
        )[0]

    def velocity(
        self, pipeline: "DiffusionPipeline", latents: "Tensor", level: float, prompt: Prompt, sampling: Sampling
    ) -> "Tensor":
        import torch

        transformer, scale = pipeline.transformer, pipeline.scheduler.config.num_train_timesteps
        latents = latents.to(device=transformer.device, dtype=transformer.dtype)
        embedded = None
        if transformer.config.guidance_embeds:
            embedded = torch.tensor([sampling.guidance * 1000.0], dtype=latents.dtype, device=latents.device)

        def answer(text: Text) -> "Tensor":
            return transformer(
                hidden_states=latents,
                timestep=torch.tensor([level * scale], device=latents.device),
                encoder_hidden_states=text.tokens,
                encoder_attention_mask=_mask(text, latents),
                pooled_projections=text.pooled,
                guidance=embedded,
                return_dict=False,
            )[0].float()

        return guided([answer(text) for text in prompt.texts], sampling.true_cfg_scale)

    def decode(self, pipeline: "DiffusionPipeline", latents: "Tensor", group: "RankGroup") -> Iterator["Tensor"]:
        from parallel.vae import decode

        return decode(pipeline.vae, (latents / pipeline.vae.config.scaling_factor).to(pipeline.vae.dtype), group)


def _mask(text: Text, latents: "Tensor") -> "Tensor":
    """Every token `[1, L]` of an encoded text counts."""
    import torch

    return torch.ones(text.tokens.shape[:2], device=latents.device)
