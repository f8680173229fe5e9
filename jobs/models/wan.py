"""Wan, text to video: guided by a negative prompt, prompts by a UMT5.

Of 2.2 there are two: A14B has two transformers that take turns, TI2V is told the noise level of each token.

Legend: C latent channels, F H W latent frames, height and width.
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
    sequence_length,
)
from jobs.models.numbers import Numbers
from jobs.store.medium import VIDEO, Medium

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, WanTransformer3DModel
    from torch import Tensor

    from parallel.rank_group import RankGroup

# As Wan's authors sample; the padding of a prompt is zeros, which the model attends to as it does to words.
TEXT_TOKENS = 512
END_OF_TEXT = 1
NEGATIVE_PROMPT = (
    "色调艳丽，过曝，静态，细节模糊不清，字幕，风格，作品，画作，画面，静止，整体发灰，最差质量，低质量，JPEG压缩残留，丑陋的，残缺的，"
    "多余的手指，画得不好的手部，画得不好的脸部，畸形的，毁容的，形态畸形的肢体，手指融合，静止不动的画面，杂乱的背景，三条腿，背景人很多，"
    "倒着走"
)


class TransformerConfig(BaseModel):
    """A configuration may leave out what equals the default of its diffusers class: these are Wan's."""

    num_attention_heads: int = 40
    attention_head_dim: int = 128
    num_layers: int = 40
    patch_size: tuple[int, int, int] = (1, 2, 2)


class VaeConfig(BaseModel):
    """The same of the VAE."""

    z_dim: int = 16
    scale_factor_temporal: int = 4
    scale_factor_spatial: int = 8


class Wan:
    """The `Family` of `WanPipeline`."""

    pipeline = "WanPipeline"
    medium: Medium = VIDEO
    classes: Mapping[str, str] = MappingProxyType(
        {
            "transformer": "WanTransformer3DModel",
            "transformer_2": "WanTransformer3DModel",
            "vae": "AutoencoderKLWan",
        }
    )
    transformers: tuple[str, ...] = ("transformer", "transformer_2")
    text_encoders: tuple[str, ...] = ("text_encoder",)
    tokenizers: tuple[str, ...] = ("tokenizer",)
    loop: tuple[str, ...] = ("scheduler",)
    vae_dtypes: Mapping[str, Dtype] = MappingProxyType({"bfloat16": "float32", "float16": "float32"})
    text_tokens = TEXT_TOKENS
    cross_attention = True
    doubles_batch = False
    predicts_epsilon = False
    decodes_tiles = True

    def obstacle(self, index: Json) -> str | None:
        if index.get("transformer") == [None, None] and not _has_boundary(index):
            return "has no transformer"
        return None

    def prompt_obstacle(self, index: Json, prompt: str) -> str | None:
        return None

    def defaults(self, configs: Configs) -> GenerationDefaults:
        common = {"num_frames": 81, "fps": 16, "steps": 50, "guidance": 5.0, "negative_prompt": NEGATIVE_PROMPT}
        if self.levels_by_token(configs.index):  # 2.2 TI2V
            of_its_own = {"height": 704, "width": 1280, "num_frames": 121, "fps": 24}
        elif _has_boundary(configs.index):
            of_its_own = {"height": 720, "width": 1280, "steps": 40, "guidance": 4.0, "guidance_2": 3.0}
        else:
            of_its_own = {"height": 480, "width": 832}
        return GenerationDefaults.model_validate(common | of_its_own)

    def guides(self, configs: Configs) -> frozenset[str]:
        return frozenset({"guidance", "negative_prompt", *(["guidance_2"] if _has_boundary(configs.index) else [])})

    def negative_prompt(self, sampling: Sampling) -> str | None:
        return sampling.negative_prompt or "" if sampling.guidance > 1 else None

    def numbers(self, configs: Configs) -> Numbers:
        model, coder = TransformerConfig.model_validate(configs.transformer), VaeConfig.model_validate(configs.vae)
        return Numbers(
            heads=model.num_attention_heads,
            width=model.num_attention_heads * model.attention_head_dim,
            blocks=model.num_layers,
            patch=model.patch_size[1],
            patch_t=model.patch_size[0],
            spatial=coder.scale_factor_spatial,
            temporal=coder.scale_factor_temporal,
            latent_channels=coder.z_dim,
            pixel_multiple=16,
        )

    def levels_by_token(self, index: Json) -> bool:
        return bool(index.get("expand_timesteps"))

    def prompt_room(self, count: TokenCount, template: Json | None) -> int | None:
        return sequence_length(template, TEXT_TOKENS) - END_OF_TEXT

    def encode(self, pipeline: "DiffusionPipeline", text: str, template: Json | None) -> Text:
        tokens, _ = pipeline.encode_prompt(
            text,
            do_classifier_free_guidance=False,
            max_sequence_length=sequence_length(template, TEXT_TOKENS),
            device=pipeline._execution_device,
        )
        return Text(tokens=tokens)

    def latent_shape(self, pipeline: "DiffusionPipeline", sampling: Sampling) -> tuple[int, ...]:
        spatial = pipeline.vae_scale_factor_spatial
        frames = (sampling.num_frames - 1) // pipeline.vae_scale_factor_temporal + 1
        return 1, pipeline.vae.config.z_dim, frames, sampling.height // spatial, sampling.width // spatial

    def set_timesteps(self, pipeline: "DiffusionPipeline", sampling: Sampling, steps: int) -> None:
        pipeline.scheduler.set_timesteps(steps)

    def levels(self, pipeline: "DiffusionPipeline") -> list[float]:
        return pipeline.scheduler.sigmas[:-1].tolist()

    def stages(self, pipeline: "DiffusionPipeline", sampling: Sampling, steps: int) -> list[range]:
        if pipeline.transformer is None or pipeline.transformer_2 is None:
            return [range(steps)]
        self.set_timesteps(pipeline, sampling, steps)
        first = sum(float(timestep) >= _boundary(pipeline) for timestep in pipeline.scheduler.timesteps)
        return [range(first), range(first, steps)]

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
        return pipeline.__call__(  # which diffusers declares of each pipeline, and not of all
            latents=latents,
            prompt_embeds=prompt.cond.tokens,
            negative_prompt_embeds=prompt.uncond.tokens if prompt.uncond else None,
            height=sampling.height,
            width=sampling.width,
            num_frames=sampling.num_frames,
            num_inference_steps=steps,
            guidance_scale=sampling.guidance,
            guidance_scale_2=sampling.guidance_2,
            output_type="latent",
            callback_on_step_end=on_step_end,
            return_dict=False,
        )[0]

    def velocity(
        self, pipeline: "DiffusionPipeline", latents: "Tensor", level: float, prompt: Prompt, sampling: Sampling
    ) -> "Tensor":
        import torch

        from caching.models import adapter_for

        device = pipeline._execution_device
        timestep = torch.tensor([level * pipeline.scheduler.config.num_train_timesteps], device=device)
        is_first = float(timestep) >= _boundary(pipeline)
        transformer: WanTransformer3DModel = pipeline.transformer if is_first else pipeline.transformer_2
        latents = latents.to(device=device, dtype=transformer.dtype)
        if self.levels_by_token(dict(pipeline.config)):
            timestep = timestep.repeat(1, adapter_for(transformer).unfold(latents).shape[1])
        velocities = [
            transformer(
                hidden_states=latents,
                timestep=timestep,
                encoder_hidden_states=text.tokens.to(transformer.dtype),
                return_dict=False,
            )[0].float()
            for text in prompt.texts
        ]
        return guided(velocities, sampling.guidance if is_first else sampling.guidance_2 or sampling.guidance)

    def decode(self, pipeline: "DiffusionPipeline", latents: "Tensor", group: "RankGroup") -> Iterator["Tensor"]:
        import torch

        from parallel.vae import decode_frame_by_frame

        config, latents = pipeline.vae.config, latents.to(pipeline.vae.dtype)
        mean, deviation = (
            torch.tensor(values).view(1, -1, 1, 1, 1).to(latents)
            for values in (config.latents_mean, config.latents_std)
        )
        return decode_frame_by_frame(pipeline.vae, latents / (1.0 / deviation) + mean, group)


def _has_boundary(index: Json) -> bool:
    return index.get("boundary_ratio") is not None


def _boundary(pipeline: "DiffusionPipeline") -> float:
    """The timestep from which on, downwards, the second transformer denoises; none has it where there is one alone."""
    ratio = pipeline.config["boundary_ratio"]
    return 0.0 if ratio is None else ratio * pipeline.scheduler.config.num_train_timesteps
