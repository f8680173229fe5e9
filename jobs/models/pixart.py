"""PixArt, alpha and Sigma: images guided by a negative prompt, prompts by a T5, which the image attends to apart.

Both passes of a step are one batch, the negative prompt's first.

Legend: C latent channels, H W latent height and width, L text tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from pydantic import BaseModel

from jobs.models.autoencoder_kl import VaeConfig, decode_images, flat_numbers
from jobs.models.epsilon import OfEpsilon, without_variance
from jobs.models.family import (
    Configs,
    GenerationDefaults,
    Json,
    Prompt,
    Sampling,
    Text,
    TokenCount,
    sequence_length,
)
from jobs.models.loop import in_one_batch
from jobs.models.numbers import Numbers
from jobs.store.medium import IMAGE, Medium

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline, PixArtTransformer2DModel
    from torch import Tensor

    from parallel.rank_group import RankGroup

END_OF_TEXT = 1


class TransformerConfig(BaseModel):
    """A configuration may leave out what equals the default of its diffusers class: these are PixArt's."""

    num_attention_heads: int = 16
    attention_head_dim: int = 72
    num_layers: int = 28
    in_channels: int = 4
    patch_size: int = 2
    sample_size: int = 128


class PixArt(OfEpsilon):
    """The `Family` of `PixArtAlphaPipeline`, and of `PixArtSigmaPipeline`, which reads longer prompts."""

    medium: Medium = IMAGE
    classes: Mapping[str, str] = MappingProxyType(
        {
            "transformer": "PixArtTransformer2DModel",
            "vae": "AutoencoderKL",
            "scheduler": "DPMSolverMultistepScheduler",
        }
    )
    text_encoders: tuple[str, ...] = ("text_encoder",)
    tokenizers: tuple[str, ...] = ("tokenizer",)
    cross_attention = True

    def __init__(self, pipeline: str, text_tokens: int) -> None:
        """`text_tokens` are those to which its pipeline fills prompts up."""
        self.pipeline, self.text_tokens = pipeline, text_tokens

    def defaults(self, configs: Configs) -> GenerationDefaults:
        model, coder = TransformerConfig.model_validate(configs.transformer), VaeConfig.model_validate(configs.vae)
        side = model.sample_size * coder.spatial
        return GenerationDefaults(height=side, width=side, steps=20, guidance=4.5)

    def numbers(self, configs: Configs) -> Numbers:
        model, coder = TransformerConfig.model_validate(configs.transformer), VaeConfig.model_validate(configs.vae)
        return flat_numbers(
            coder,
            heads=model.num_attention_heads,
            head_width=model.attention_head_dim,
            blocks=model.num_layers,
            patch=model.patch_size,
            latent_channels=model.in_channels,
        )

    def prompt_room(self, count: TokenCount, template: Json | None) -> int | None:
        return sequence_length(template, self.text_tokens) - END_OF_TEXT

    def encode(self, pipeline: "DiffusionPipeline", text: str, template: Json | None) -> Text:
        """In small letters, as the pipeline has it where it is not to look for web addresses and the like."""
        tokens, mask, _, _ = pipeline.encode_prompt(
            text,
            do_classifier_free_guidance=False,
            device=pipeline._execution_device,
            clean_caption=False,
            max_sequence_length=sequence_length(template, self.text_tokens),
        )
        return Text(tokens=tokens, mask=mask)

    def latent_shape(self, pipeline: "DiffusionPipeline", sampling: Sampling) -> tuple[int, ...]:
        scale = pipeline.vae_scale_factor
        return 1, pipeline.transformer.config.in_channels, sampling.height // scale, sampling.width // scale

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

        def answer(batch: "Tensor", texts: Sequence[Text]) -> "Tensor":
            return transformer(
                batch,
                encoder_hidden_states=torch.cat([text.tokens for text in texts]),
                encoder_attention_mask=torch.cat([text.mask for text in texts if text.mask is not None]),
                timestep=timestep.expand(len(batch)),
                added_cond_kwargs=_size(transformer, sampling, batch),
                return_dict=False,
            )[0]

        epsilon = in_one_batch(answer, latents.to(transformer.dtype), prompt, sampling.guidance, cond_first=False)
        return without_variance(epsilon, latents.shape[1])

    def decode(self, pipeline: "DiffusionPipeline", latents: "Tensor", group: "RankGroup") -> Iterator["Tensor"]:
        return decode_images(pipeline.vae, latents / pipeline.vae.config.scaling_factor, group)


def _size(
    transformer: "PixArtTransformer2DModel", sampling: Sampling, batch: "Tensor"
) -> "dict[str, Tensor | None] | dict[str, Tensor]":
    """What some models are told of the image's size, for each member of the batch."""
    if not transformer.use_additional_conditions:
        return {"resolution": None, "aspect_ratio": None}
    height, width = sampling.height, sampling.width
    told = {"resolution": [height, width], "aspect_ratio": [height / width]}
    return {name: batch.new_tensor(values).repeat(len(batch), 1) for name, values in told.items()}
