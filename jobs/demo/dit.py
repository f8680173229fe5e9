"""The demo model of images: a complete DiT pipeline, small enough for a repository, and how it is trained.

Legend: B batch, C latent channels, F H W latent frames (one), height and width.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.embeddings import CombinedTimestepLabelEmbeddings
from diffusers.models.normalization import AdaLayerNormZero
from torch import Tensor, nn

from jobs.demo.losses import epsilon_and_variance
from jobs.demo.scenes import CLASSES, COLOURS, SHAPES
from jobs.demo.trainee import LATENT_CHANNELS, Design, Stage
from jobs.models.demos import DEMOS
from jobs.models.family import GenerationDefaults

NONE = 1000  # the class that stands for none, which DiT's pipeline in diffusers has for any model
CLASS_SCALE = 0.3  # next to embeddings of timesteps
SHIPPED = Design(heads=2, head_width=48, blocks=(12,), shift=1.0, side=64, num_frames=1)


def build_vae() -> AutoencoderKL:
    """The VAE of images: 4x4 pixels to one latent of 8 channels."""
    make: Any = AutoencoderKL  # its annotations admit tuples of one
    return make(
        latent_channels=LATENT_CHANNELS,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        norm_num_groups=4,
        mid_block_add_attention=False,
    )


def build_transformer(design: Design = SHIPPED) -> DiTTransformer2DModel:
    """The denoiser; shipped, 12 blocks of width 96 (2 heads x 48). Each begins as the identity, as DiT's do.

    It is never put into training mode, in which each block would drop classes by itself.
    """
    (num_layers,) = design.blocks
    transformer = DiTTransformer2DModel(
        num_attention_heads=design.heads,
        attention_head_dim=design.head_width,
        in_channels=LATENT_CHANNELS,
        out_channels=2 * LATENT_CHANNELS,  # epsilon and variance
        num_layers=num_layers,
        sample_size=design.side // 4,
        patch_size=1,
        num_embeds_ada_norm=NONE,
    ).eval()
    for block in cast("Iterable[BasicTransformerBlock]", transformer.transformer_blocks):
        norm = cast(AdaLayerNormZero, block.norm1)
        assert isinstance(norm.emb, CombinedTimestepLabelEmbeddings)
        nn.init.zeros_(norm.linear.weight)
        nn.init.zeros_(norm.linear.bias)
        norm.emb.class_embedder.embedding_table.weight.data.copy_(_first_classes(transformer.inner_dim))
    return transformer


def _first_classes(width: int) -> Tensor:
    """What stands for each class at first `[1001, width]`: a vector of its colour and one of its shape.

    So what is learnt of a colour holds for every shape. None, and numbers without a class, are zeros.
    """
    random = torch.Generator().manual_seed(0)
    shapes, colours = (
        CLASS_SCALE * torch.randn(len(each), width, generator=random, device="cpu") for each in (SHAPES, COLOURS)
    )
    table = torch.zeros(NONE + 1, width, device="cpu")
    table[: len(CLASSES)] = (shapes[:, None] + colours).flatten(0, 1)
    return table


@dataclass(frozen=True)
class DiTDemo:
    """The `Trainee` of `--model demo-dit`."""

    design: Design = SHIPPED
    directory = DEMOS["demo-dit"]
    takes_classes = True
    caption_drop = 0.1
    stages = (
        Stage(steps=2400, batch=4, frames=1, side=64, learning_rate=1.5e-3),
        Stage(steps=200, batch=16, frames=1, side=64, learning_rate=5e-4),
    )

    def __post_init__(self) -> None:
        """ValueError for videos."""
        if self.design.num_frames != 1:
            raise ValueError(f"num_frames {self.design.num_frames} must be 1, as this model makes images")

    @property
    def defaults(self) -> GenerationDefaults:
        return GenerationDefaults(
            height=self.design.side, width=self.design.side, steps=50, guidance=4.0, dtype="float32"
        )

    def build_vae(self) -> AutoencoderKL:
        return build_vae()

    def load_vae(self, directory: Path) -> AutoencoderKL:
        return AutoencoderKL.from_pretrained(directory)

    def build_transformer(self) -> DiTTransformer2DModel:
        return build_transformer(self.design)

    def load_transformer(self, directory: Path) -> DiTTransformer2DModel:
        return DiTTransformer2DModel.from_pretrained(directory)

    def build_pipeline(self, words: list[str], vae: AutoencoderKL, transformer: DiTTransformer2DModel) -> DiTPipeline:
        """It reads no words; that it knows its classes by name, its class does not write down by itself."""
        make: Any = DiTPipeline  # its annotations admit an enumeration of schedulers
        names = {number: name for number, name in enumerate(CLASSES)}
        pipeline = make(transformer, vae, DDIMScheduler(clip_sample=False), id2label=names)
        pipeline.register_to_config(id2label=names)
        return pipeline

    def scale(self, vae: AutoencoderKL, latents: Tensor) -> Tensor:
        vae.register_to_config(scaling_factor=float(1 / latents.float().std()), _name_or_path="")
        return latents * vae.config["scaling_factor"]

    def encode_captions(self, pipeline: DiTPipeline, captions: list[str]) -> tuple[Tensor, ...]:
        """The number of the class that each caption names, `[captions]`, or that of none."""
        numbers = [next((n for n, name in enumerate(CLASSES) if name in caption), NONE) for caption in captions]
        return (torch.tensor(numbers),)

    def loss(
        self, transformer: DiTTransformer2DModel, clean: Tensor, noise: Tensor, level: Tensor, *text: Tensor
    ) -> Tensor:
        def predict(latents: Tensor, timestep: Tensor) -> Tensor:
            return transformer(latents, timestep, text[0], return_dict=False)[0]

        signal = DDIMScheduler(clip_sample=False).alphas_cumprod.to(clean.device)
        return epsilon_and_variance(predict, clean[:, :, 0], noise[:, :, 0], level, signal)
