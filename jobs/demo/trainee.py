"""What is particular to a demo model when it is trained.

Legend: B batch, C latent channels, F H W latent frames, height and width.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from diffusers import AutoencoderKLHunyuanVideo, AutoencoderKLWan, DiffusionPipeline, ModelMixin
from torch import Tensor

from jobs.models.family import GenerationDefaults

LATENT_CHANNELS = 8  # of each demo model: 4x4 pixels and 4 frames to one latent
VideoVae = AutoencoderKLHunyuanVideo | AutoencoderKLWan


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Steps of a VAE on scenes of one size, under one warm-up and one cool-down of the learning rate."""

    steps: int
    batch: int
    frames: int
    side: int
    learning_rate: float = 8e-4
    decoder_only: bool = False


Vae = TypeVar("Vae", bound=VideoVae)
Transformer = TypeVar("Transformer", bound=ModelMixin)
Pipeline = TypeVar("Pipeline", bound=DiffusionPipeline)


class Trainee(Protocol[Vae, Transformer, Pipeline]):
    """A demo model: its parts, untrained, and how they are called."""

    directory: Path
    """Where the shipped model is."""

    defaults: GenerationDefaults
    """What its videos are like."""

    shift: float
    """Of its scheduler's noise levels."""

    caption_drop: float
    """The part of the training that sees an empty caption, without which there is nothing to guide away from."""

    stages: tuple[Stage, ...]
    """Of the VAE's training."""

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

    def velocity(self, transformer: Transformer, latents: Tensor, sigma: Tensor, *text: Tensor) -> Tensor:
        """The velocity of latents `[B, C, F, H, W]` at noise levels `[B]`, by the text of each."""
        ...
