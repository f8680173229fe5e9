"""What is particular to a demo model when it is trained.

Legend: B batch, C latent channels, F H W latent frames, height and width.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from diffusers import (
    AutoencoderKL,
    AutoencoderKLHunyuanVideo,
    AutoencoderKLWan,
    DiffusionPipeline,
    ModelMixin,
)
from torch import Tensor

from jobs.models.family import GenerationDefaults

LATENT_CHANNELS = 8  # of each demo model: 4x4 pixels, and of videos 4 frames, to one latent
AnyVae = AutoencoderKLHunyuanVideo | AutoencoderKLWan | AutoencoderKL  # the last one is of images


@dataclass(frozen=True, kw_only=True)
class Design:
    """How large a transformer and its videos are. Raises ValueError for what does not fit together."""

    heads: int
    head_width: int
    blocks: tuple[int, ...]
    """Of each kind, in order."""
    shift: float
    """Of the scheduler's noise levels."""
    side: int
    """Height and width of a video in pixels."""
    num_frames: int

    def __post_init__(self) -> None:
        if self.side % 16:
            raise ValueError(f"side {self.side} must be a multiple of 16, as tokens are 16x16 pixels")
        if self.num_frames % 4 != 1:
            raise ValueError(f"num_frames {self.num_frames} must be a multiple of 4 plus 1, for the VAE")
        if self.head_width % 2:
            raise ValueError(f"head_width {self.head_width} must be even, for rotary positions")

    @property
    def rope(self) -> tuple[int, int, int]:
        """The part of a head's width that turns with the place along (time, height, width)."""
        third = 2 * (self.head_width // 6)
        return self.head_width - 2 * third, third, third

    @property
    def size(self) -> dict[str, int]:
        """Of a video."""
        return {"height": self.side, "width": self.side, "num_frames": self.num_frames}

    def defaults(self, **own: Any) -> GenerationDefaults:
        """What its videos are like; `own` are those of one model."""
        return GenerationDefaults(**self.size, fps=12, steps=50, dtype="float32", **own)


@dataclass(frozen=True, kw_only=True)
class Changes:
    """What of a design is other than in the shipped model."""

    heads: int | None = None
    head_width: int | None = None
    blocks: tuple[int, ...] | None = None
    """Double- and single-stream blocks of `demo`; the blocks of `demo-wan` and `demo-dit`."""
    shift: float | None = None
    """Of the scheduler's noise levels."""
    side: int | None = None
    """Height and width of a video in pixels."""
    num_frames: int | None = None

    def of(self, shipped: Design) -> Design:
        """Raises ValueError for what does not fit."""
        design = replace(shipped, **{name: value for name, value in vars(self).items() if value is not None})
        if len(design.blocks) != len(shipped.blocks):
            raise ValueError(f"blocks {design.blocks}: this model has {len(shipped.blocks)} kinds of them")
        return design


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Steps of a VAE on scenes of one size, under one warm-up and one cool-down of the learning rate."""

    steps: int
    batch: int
    frames: int
    side: int
    learning_rate: float = 8e-4
    decoder_only: bool = False


Vae = TypeVar("Vae", bound=AnyVae)
Transformer = TypeVar("Transformer", bound=ModelMixin)
Pipeline = TypeVar("Pipeline", bound=DiffusionPipeline)


class Trainee(Protocol[Vae, Transformer, Pipeline]):
    """A demo model: its parts, untrained, and how they are called."""

    directory: Path
    """Where the shipped model is."""

    takes_classes: bool
    """Whether its prompts are `CLASSES` of `jobs.demo.scenes`, and not captions."""

    caption_drop: float
    """The part of the training that sees an empty caption, without which there is nothing to guide away from."""

    stages: tuple[Stage, ...]
    """Of the VAE's training."""

    @property
    def design(self) -> Design: ...

    @property
    def defaults(self) -> GenerationDefaults:
        """What its videos are like."""
        ...

    def build_vae(self) -> Vae: ...

    def load_vae(self, directory: Path) -> Vae: ...

    def build_transformer(self) -> Transformer: ...

    def load_transformer(self, directory: Path) -> Transformer: ...

    def build_pipeline(self, words: list[str], vae: Vae, transformer: Transformer) -> Pipeline:
        """Joined with text encoders, tokenizers and a scheduler."""
        ...

    def scale(self, vae: Vae, latents: Tensor) -> Tensor:
        """Latents `[N, C, F, H, W]` of unit variance; the VAE's configuration takes note of how."""
        ...

    def encode_captions(self, pipeline: Pipeline, captions: list[str]) -> tuple[Tensor, ...]:
        """What the frozen text encoders say of each caption: tensors whose first dimension is the captions."""
        ...

    def loss(self, transformer: Transformer, clean: Tensor, noise: Tensor, level: Tensor, *text: Tensor) -> Tensor:
        """Of what is predicted from clean latents and noise `[B, C, F, H, W]`, mixed at levels `[B]`; 1 is noise alone.

        `text` is that of each.
        """
        ...
