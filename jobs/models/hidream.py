"""HiDream-I1: images guided by a negative prompt, prompts by two CLIPs, a T5 and a Llama, layer by layer.

Both passes of a step are one batch, the negative prompt's first; the velocity is the negative of what the model gives.
Its pipeline makes images of one area; those here are square, and so of one size.

Legend: C latent channels, H W latent height and width, L text tokens, K layers of the Llama.
"""

from collections.abc import Mapping, Sequence
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
    sequence_length,
)
from jobs.models.flow import OfFlow
from jobs.models.loop import in_one_batch
from jobs.models.numbers import Numbers
from jobs.store.medium import IMAGE, Medium

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor


TEXT_TOKENS = 128  # to which the pipeline fills prompts up, for each encoder
END_OF_TEXT = 1
SCHEDULERS = ("FlowMatchEulerDiscreteScheduler", "UniPCMultistepScheduler")


class TransformerConfig(BaseModel):
    """A configuration may leave out what equals the default of its diffusers class: these are HiDream's."""

    patch_size: int = 2
    in_channels: int = 64
    num_layers: int = 16
    num_single_layers: int = 32
    attention_head_dim: int = 128
    num_attention_heads: int = 20
    max_resolution: tuple[int, int] = (128, 128)


class HiDream(OfFlow):
    """The `Family` of `HiDreamImagePipeline`."""

    pipeline = "HiDreamImagePipeline"
    medium: Medium = IMAGE
    classes: Mapping[str, str] = MappingProxyType(
        {"transformer": "HiDreamImageTransformer2DModel", "vae": "AutoencoderKL"}
    )
    text_encoders: tuple[str, ...] = ("text_encoder", "text_encoder_2", "text_encoder_3", "text_encoder_4")
    tokenizers: tuple[str, ...] = ("tokenizer_3", "tokenizer", "tokenizer_2", "tokenizer_4")
    text_tokens = TEXT_TOKENS
    cross_attention = False
    doubles_batch = True

    def obstacle(self, index: Json) -> str | None:
        match index.get("scheduler"):
            case [_, str(name)] if name not in SCHEDULERS:
                return f"has the scheduler {name}: needed is {' or '.join(SCHEDULERS)}, which draw no noise on the way"
        return None

    def defaults(self, configs: Configs) -> GenerationDefaults:
        side = self.numbers(configs).side
        return GenerationDefaults.model_validate({"height": side, "width": side, "steps": 50, "guidance": 5.0})

    def numbers(self, configs: Configs) -> Numbers:
        model, coder = TransformerConfig.model_validate(configs.transformer), VaeConfig.model_validate(configs.vae)
        return flat_numbers(
            coder,
            heads=model.num_attention_heads,
            head_width=model.attention_head_dim,
            blocks=model.num_layers + model.num_single_layers,
            patch=model.patch_size,
            latent_channels=model.in_channels,
            side=model.max_resolution[0] * coder.spatial,
        )

    def prompt_room(self, count: TokenCount, template: Json | None) -> int | None:
        return sequence_length(template, TEXT_TOKENS) - END_OF_TEXT

    def encode(self, pipeline: "DiffusionPipeline", text: str, template: Json | None) -> Text:
        tokens, _, layers, _, pooled, _ = pipeline.encode_prompt(
            text,
            device=pipeline._execution_device,
            do_classifier_free_guidance=False,
            max_sequence_length=sequence_length(template, TEXT_TOKENS),
        )
        return Text(tokens=tokens, pooled=pooled, layers=layers)

    def latent_shape(self, pipeline: "DiffusionPipeline", sampling: Sampling) -> tuple[int, ...]:
        scale = pipeline.vae_scale_factor
        return 1, pipeline.transformer.config.in_channels, sampling.height // scale, sampling.width // scale

    def set_timesteps(self, pipeline: "DiffusionPipeline", sampling: Sampling, steps: int) -> None:
        """A scheduler may shift them by the most tokens that the model takes."""
        from diffusers.pipelines.hidream_image.pipeline_hidream_image import calculate_shift

        shift = {}
        if pipeline.scheduler.config.get("use_dynamic_shifting"):
            shift["mu"] = calculate_shift(pipeline.transformer.max_seq)
        pipeline.scheduler.set_timesteps(steps, **shift)

    def predict(
        self,
        pipeline: "DiffusionPipeline",
        latents: "Tensor",
        timestep: "Tensor",
        prompt: Prompt,
        sampling: Sampling,
    ) -> "Tensor":
        """What the pipeline makes of what the transformer says of latents `[1, C, H, W]`, guided; of the same shape."""
        import torch

        transformer = pipeline.transformer

        def answer(batch: "Tensor", texts: Sequence[Text]) -> "Tensor":
            layers = torch.cat([text.layers for text in texts if text.layers is not None], dim=1)
            return -transformer(
                hidden_states=batch,
                timesteps=timestep.expand(len(batch)),
                encoder_hidden_states_t5=torch.cat([text.tokens for text in texts]),
                encoder_hidden_states_llama3=layers,
                pooled_embeds=torch.cat([text.pooled for text in texts if text.pooled is not None]),
                return_dict=False,
            )[0]

        return in_one_batch(answer, latents.to(transformer.dtype), prompt, sampling.guidance, cond_first=False)
