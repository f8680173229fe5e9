"""What is particular to a family of models: its files, the sizes that fit it, and how its pipeline is run.

Legend: C latent channels, F H W latent frames, height and width, L text tokens, D text width, f H' W' frames, height
and width of a video.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import lcm
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, JsonValue

if TYPE_CHECKING:  # what is known of a model before it is loaded is read without torch
    from diffusers import DiffusionPipeline
    from numpy import ndarray
    from torch import Tensor

    from parallel.rank_group import RankGroup

Dtype = Literal["float32", "bfloat16", "float16"]
# The most of each that a video may have: far above what any model makes, far below what would take a machine's memory.
MOST = {"height": 16_384, "width": 16_384, "num_frames": 100_000, "fps": 1_000, "steps": 10_000}
MOST_TOKENS = 2**24  # of a video; those of 2048x2048x257 are a sixteenth of it
Height = Annotated[int, Field(ge=1, le=MOST["height"])]
Width = Annotated[int, Field(ge=1, le=MOST["width"])]
NumFrames = Annotated[int, Field(ge=1, le=MOST["num_frames"])]
Fps = Annotated[int, Field(ge=1, le=MOST["fps"])]
Steps = Annotated[int, Field(ge=1, le=MOST["steps"])]
Json = dict[str, JsonValue]


class GenerationDefaults(BaseModel):
    """What a video is like unless the user says otherwise: its family's, or `resca.json`'s beside model_index.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    height: Height
    width: Width
    num_frames: NumFrames
    fps: Fps
    steps: Steps
    guidance: Annotated[float, Field(ge=0)]
    dtype: Dtype | None = None
    prompt_template: Json | None = None


@dataclass(frozen=True, kw_only=True)
class Numbers:
    """The numbers of a model that decide what can be rendered."""

    heads: int
    width: int
    blocks: int
    patch: int
    patch_t: int
    spatial: int
    temporal: int
    latent_channels: int
    guidance_embeds: bool
    pixel_multiple: int
    """Of height and width, that the pipeline asks for whatever the VAE and the patches are."""

    def grid(self, height: int, width: int, num_frames: int) -> tuple[int, int, int]:
        """The tokens of a valid size, along (time, height, width)."""
        latent_frames = (num_frames - 1) // self.temporal + 1
        side = self.spatial * self.patch
        return latent_frames // self.patch_t, height // side, width // side

    def num_tokens(self, height: int, width: int, num_frames: int) -> int:
        """The latent tokens of a valid size."""
        t, h, w = self.grid(height, width, num_frames)
        return t * h * w

    def nearest(self, height: int, width: int, num_frames: int) -> tuple[int, int, int]:
        """The valid size that is nearest to this one."""
        sides = [max(1, round(side / self.pixels)) * self.pixels for side in (height, width)]
        groups = max(0, round((num_frames - self.first_frames) / self.frames))
        return sides[0], sides[1], groups * self.frames + self.first_frames

    def step_flops(self, num_tokens: int) -> float:
        """About the FLOPs of a dense step, whose N tokens of width d take 4 d N (N + 6 d) in each block.

        Linear layers take 24 N d**2 of them, attention 4 N**2 d (a multiply-add counts 2).
        """
        return 4.0 * self.width * num_tokens * (num_tokens + 6 * self.width) * self.blocks

    @property
    def pixels(self) -> int:
        """What height and width are multiples of."""
        return lcm(self.spatial * self.patch, self.pixel_multiple)

    @property
    def frames(self) -> int:
        """The frames of a video are a multiple of these, and the first ones."""
        return self.temporal * self.patch_t

    @property
    def first_frames(self) -> int:
        """The fewest frames: the causal VAE gives the first latent to one frame, each other one to `temporal`."""
        return self.temporal * (self.patch_t - 1) + 1


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """An encoded prompt without padding: token features `[1, L, D]` and a pooled feature `[1, D]`."""

    tokens: "Tensor"
    pooled: "Tensor"

    @property
    def num_tokens(self) -> int:
        return self.tokens.shape[1]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """What to sample: a seed, a size in pixels and frames, denoising steps, and the embedded guidance scale."""

    seed: int
    height: int
    width: int
    num_frames: int
    steps: int
    guidance: float


# How many tokens a text has, with what the tokenizer puts around it.
TokenCount = Callable[[str], int]
# Called after each step with the pipeline, the step, its timestep and {"latents": ...}; what it returns is put in.
StepCallback = Callable[["DiffusionPipeline", int, "Tensor", dict[str, "Tensor"]], dict[str, "Tensor"]]


class Family(Protocol):
    """A family of models. Torch and diffusers are imported by those methods alone that take a pipeline."""

    pipeline: str
    """The class of diffusers that model_index.json names."""

    classes: Mapping[str, str]
    """Of components that have to be of one class: its name in diffusers."""

    text_encoders: tuple[str, ...]
    """The components with weights that only `encode` needs."""

    tokenizers: tuple[str, ...]
    """The components without weights that only `encode` needs."""

    vae_dtypes: Mapping[str, Dtype]
    """The number format of the VAE by the model's, where it is another."""

    defaults: GenerationDefaults

    def numbers(self, transformer: Json, vae: Json) -> Numbers:
        """What the components' `config.json` say; pydantic's ValidationError for what makes no sense."""
        ...

    def prompt_room(self, count: TokenCount, template: Json | None) -> int | None:
        """The tokens of a prompt, without what is put around it, that `encode` takes; None if that is not known.

        `count` is of the first of the tokenizers.
        """
        ...

    def encode(self, pipeline: "DiffusionPipeline", text: str, template: Json | None) -> Prompt:
        """Run the text encoders; `template` is put around the prompt instead of the pipeline's own."""
        ...

    def latent_shape(self, pipeline: "DiffusionPipeline", sampling: Sampling) -> tuple[int, ...]:
        """Of the noise: `[1, C, F, H, W]`."""
        ...

    def sigmas(self, steps: int) -> "ndarray":
        """The noise levels `[steps]` that the pipeline hands to its scheduler, which may shift them."""
        ...

    def sample(
        self,
        pipeline: "DiffusionPipeline",
        latents: "Tensor",
        prompt: Prompt,
        sampling: Sampling,
        *,
        steps: int,
        done: int = 0,
        on_step_end: StepCallback | None = None,
    ) -> "Tensor":
        """The pipeline's own denoising loop of `steps`, from the latents after `done` of them to final latents.

        Latents are float32, of any shape that the transformer's forward takes, and stay so if it answers in float32.
        """
        ...

    def velocity(
        self, pipeline: "DiffusionPipeline", latents: "Tensor", level: float, prompt: Prompt, guidance: float
    ) -> "Tensor":
        """What the bare transformer says of latents `[1, C, F, H, W]` at a noise level; the same shape."""
        ...

    def decode(self, pipeline: "DiffusionPipeline", latents: "Tensor", group: "RankGroup") -> Iterator["Tensor"]:
        """The frames of final latents in pieces `[1, 3, f, H', W']`, in order, from -1 to 1.

        All ranks decode; rank 0 gets the pieces, and the others have to run the iterator to its end, too.
        """
        ...
