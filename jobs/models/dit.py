"""DiT: images of the classes of ImageNet, each prompt the name of one or its number.

Both passes of a step are one batch, the class first, and behind it none. It makes images of one size.

Legend: C latent channels, H W latent height and width.
"""

from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from pydantic import BaseModel

from jobs.errors import BadInput
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
)
from jobs.models.loop import in_one_batch
from jobs.models.numbers import Numbers
from jobs.store.medium import IMAGE, Medium

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor

    from parallel.rank_group import RankGroup

NUM_CLASSES = 1000  # the number behind the last one stands for none
MOST_NAMED = 5


class TransformerConfig(BaseModel):
    """A configuration may leave out what equals the default of its diffusers class: these are DiT's."""

    num_attention_heads: int = 16
    attention_head_dim: int = 72
    num_layers: int = 28
    in_channels: int = 4
    patch_size: int = 2
    sample_size: int = 32


class DiT(OfEpsilon):
    """The `Family` of `DiTPipeline`."""

    pipeline = "DiTPipeline"
    medium: Medium = IMAGE
    classes: Mapping[str, str] = MappingProxyType(
        {"transformer": "DiTTransformer2DModel", "vae": "AutoencoderKL", "scheduler": "DDIMScheduler"}
    )
    text_encoders: tuple[str, ...] = ()
    tokenizers: tuple[str, ...] = ()
    text_tokens = 0
    cross_attention = False

    def prompt_obstacle(self, index: Json, prompt: str) -> str | None:
        names = _names(index)
        if _class_of(prompt, names) is not None:
            return None
        some = ", ".join(f"{name} ({number})" for name, number in list(names.items())[:MOST_NAMED])
        known = f"the name or the number of one, such as {some}" if names else f"a number from 0 to {NUM_CLASSES - 1}"
        return f"{prompt!r} is no class of this model: give {known}"

    def defaults(self, configs: Configs) -> GenerationDefaults:
        side = self.numbers(configs).side
        return GenerationDefaults.model_validate({"height": side, "width": side, "steps": 50, "guidance": 4.0})

    def guides(self, configs: Configs) -> frozenset[str]:
        return frozenset({"guidance"})

    def negative_prompt(self, sampling: Sampling) -> str | None:
        return "" if sampling.guidance > 1 else None

    def numbers(self, configs: Configs) -> Numbers:
        model, coder = TransformerConfig.model_validate(configs.transformer), VaeConfig.model_validate(configs.vae)
        return flat_numbers(
            coder,
            heads=model.num_attention_heads,
            head_width=model.attention_head_dim,
            blocks=model.num_layers,
            patch=model.patch_size,
            latent_channels=model.in_channels,
            side=model.sample_size * coder.spatial,
        )

    def prompt_room(self, count: TokenCount, template: Json | None) -> int | None:
        return None

    def encode(self, pipeline: "DiffusionPipeline", text: str, template: Json | None) -> Text:
        """The number of a class in place of a feature; no tokens. An empty text is none."""
        import torch

        number = _class_of(text, pipeline.labels) if text else NUM_CLASSES
        if number is None:
            raise BadInput(f"{text!r} is no class of this model")
        device = pipeline._execution_device
        return Text(tokens=torch.empty(1, 0, 0, device=device), pooled=torch.tensor([[number]], device=device))

    def latent_shape(self, pipeline: "DiffusionPipeline", sampling: Sampling) -> tuple[int, ...]:
        config = pipeline.transformer.config
        return 1, config.in_channels, config.sample_size, config.sample_size

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
            labels = torch.cat([text.pooled[0] for text in texts if text.pooled is not None])
            told = {"timestep": timestep.expand(len(batch)), "class_labels": labels}
            return without_variance(transformer(batch, **told, return_dict=False)[0], batch.shape[1])

        return in_one_batch(answer, latents.to(transformer.dtype), prompt, sampling.guidance, cond_first=True)

    def decode(self, pipeline: "DiffusionPipeline", latents: "Tensor", group: "RankGroup") -> Iterator["Tensor"]:
        return decode_images(pipeline.vae, 1 / pipeline.vae.config.scaling_factor * latents, group)


def _names(index: Json) -> dict[str, int]:
    """The classes by their names, of which each may have several, as the pipeline reads `model_index.json`."""
    labels = index.get("id2label")
    pairs = labels.items() if isinstance(labels, dict) else ()
    names = {name.strip(): int(number) for number, said in pairs for name in str(said).split(",")}
    return dict(sorted(names.items()))


def _class_of(prompt: str, names: Mapping[str, int]) -> int | None:
    """By its name or number; None for what is neither, and for the number of a class that has no name."""
    if prompt.isdecimal():
        known = set(names.values()) or range(NUM_CLASSES)
        return int(prompt) if int(prompt) in known else None
    return names.get(prompt)
