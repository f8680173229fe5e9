"""Latte: videos guided by a negative prompt, prompts by a T5, which the video attends to apart.

Its tokens attend in space and in time by turns, so that one rank has all of them. Both passes of a step are one batch,
the negative prompt's first, whose text is as long as the prompt's.

Legend: C latent channels, F H W frames, latent height and width, L text tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from pydantic import BaseModel

from jobs.models.autoencoder_kl import VaeConfig, flat_numbers
from jobs.models.epsilon import OfEpsilon, without_variance
from jobs.models.family import Configs, GenerationDefaults, Json, Prompt, Sampling, Text, TokenCount
from jobs.models.loop import in_one_batch
from jobs.models.numbers import Numbers
from jobs.store.medium import VIDEO, Medium

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor

    from parallel.rank_group import RankGroup

TEXT_TOKENS = 120  # to which the pipeline fills prompts up, before it cuts them to what is there
END_OF_TEXT = 1
FRAMES_AT_ONCE = 14  # as the pipeline decodes them


class TransformerConfig(BaseModel):
    """A configuration may leave out what equals the default of its diffusers class: these are Latte's."""

    num_attention_heads: int = 16
    attention_head_dim: int = 88
    num_layers: int = 1
    in_channels: int = 4
    patch_size: int = 2
    sample_size: int = 64
    video_length: int = 16


class Latte(OfEpsilon):
    """The `Family` of `LattePipeline`."""

    pipeline = "LattePipeline"
    medium: Medium = VIDEO
    classes: Mapping[str, str] = MappingProxyType(
        {"transformer": "LatteTransformer3DModel", "vae": "AutoencoderKL", "scheduler": "DDIMScheduler"}
    )
    text_encoders: tuple[str, ...] = ("text_encoder",)
    tokenizers: tuple[str, ...] = ("tokenizer",)
    text_tokens = TEXT_TOKENS
    cross_attention = True

    def defaults(self, configs: Configs) -> GenerationDefaults:
        model, coder = TransformerConfig.model_validate(configs.transformer), VaeConfig.model_validate(configs.vae)
        side, frames = model.sample_size * coder.spatial, model.video_length
        return GenerationDefaults(height=side, width=side, num_frames=frames, fps=8, steps=50, guidance=7.5)

    def numbers(self, configs: Configs) -> Numbers:
        model, coder = TransformerConfig.model_validate(configs.transformer), VaeConfig.model_validate(configs.vae)
        return flat_numbers(
            coder,
            heads=model.num_attention_heads,
            head_width=model.attention_head_dim,
            blocks=2 * model.num_layers,
            patch=model.patch_size,
            latent_channels=model.in_channels,
            num_frames=model.video_length,
            attends_to_all=False,
        )

    def prompt_room(self, count: TokenCount, template: Json | None) -> int | None:
        return TEXT_TOKENS - END_OF_TEXT

    def encode(self, pipeline: "DiffusionPipeline", text: str, template: Json | None) -> Text:
        """With its padding, as a negative prompt's is part of what it is cut to; FLOPs are counted with it."""
        given = {"do_classifier_free_guidance": False, "device": pipeline._execution_device}
        tokens, _ = pipeline.encode_prompt(text, **given, mask_feature=False)
        cut, _ = pipeline.encode_prompt(text, **given, mask_feature=True)
        mask = tokens.new_zeros(tokens.shape[:2])
        mask[:, : cut.shape[1]] = 1
        return Text(tokens=tokens, mask=mask)

    def latent_shape(self, pipeline: "DiffusionPipeline", sampling: Sampling) -> tuple[int, ...]:
        scale, channels = pipeline.vae_scale_factor, pipeline.transformer.config.in_channels
        return 1, channels, sampling.num_frames, sampling.height // scale, sampling.width // scale

    def predict(
        self,
        pipeline: "DiffusionPipeline",
        latents: "Tensor",
        timestep: "Tensor",
        prompt: Prompt,
        sampling: Sampling,
    ) -> "Tensor":
        import torch

        transformer = pipeline.transformer
        assert prompt.cond.mask is not None
        length = int(prompt.cond.mask.sum())

        def answer(batch: "Tensor", texts: Sequence[Text]) -> "Tensor":
            return transformer(
                hidden_states=batch,
                encoder_hidden_states=torch.cat([text.tokens[:, :length] for text in texts]),
                timestep=timestep.expand(len(batch)),
                return_dict=False,
            )[0]

        epsilon = in_one_batch(answer, latents.to(transformer.dtype), prompt, sampling.guidance, cond_first=False)
        return without_variance(epsilon, latents.shape[1])

    def decode(self, pipeline: "DiffusionPipeline", latents: "Tensor", group: "RankGroup") -> Iterator["Tensor"]:
        """Frames are images to the VAE, so many at once; on rank 0 alone."""
        if group.rank == 0:
            vae = pipeline.vae
            frames = latents[0].permute(1, 0, 2, 3).to(vae.dtype)
            for some in (1 / vae.config.scaling_factor * frames).split(FRAMES_AT_ONCE):
                yield vae.decode(some, return_dict=False)[0].permute(1, 0, 2, 3)[None]
