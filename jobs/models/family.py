"""What is particular to a family of models: its files, the sizes that fit it, and how its pipeline is run.

Legend: C latent channels, F H W latent frames, height and width, L text tokens, D text width, f H' W' frames, height
and width of a video. An image is one frame, f = 1, and its latents are [1, C, H, W].
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from jobs.models.numbers import Numbers
from jobs.store.medium import Medium

if TYPE_CHECKING:  # what is known of a model before it is loaded is read without torch
    from diffusers import DiffusionPipeline
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
Scale = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Json = dict[str, JsonValue]
# How a video is guided; which of them a model takes, its family says.
SCALES = ("guidance", "guidance_2", "true_cfg_scale")
GUIDES = (*SCALES, "negative_prompt")


class GenerationDefaults(BaseModel):
    """What a video is like unless the user says otherwise: its family's, or `resca.json`'s beside model_index.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    height: Height
    width: Width
    num_frames: NumFrames = 1
    fps: Fps | None = None
    """None of images."""
    steps: Steps
    guidance: Scale
    guidance_2: Scale | None = None
    true_cfg_scale: Scale | None = None
    negative_prompt: str | None = None
    dtype: Dtype | None = None
    prompt_template: Json | None = None


@dataclass(frozen=True, kw_only=True)
class Configs:
    """What the files of a model's directory say: its `model_index.json`, and the configuration of components.

    Where there are several transformers, it is that of the first.
    """

    index: Json = field(default_factory=dict)
    transformer: Json = field(default_factory=dict)
    vae: Json = field(default_factory=dict)
    loop: Mapping[str, Json] = field(default_factory=dict)
    """Of those in `Family.loop`, by their names."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """What a pass looks at: token features `[1, L, D]` and, in some families, more.

    Padding is in it only where the model attends to that, too.
    """

    tokens: "Tensor"
    pooled: "Tensor | None" = None
    """A feature of the whole text `[1, D']`, or the number of a class `[1, 1]`."""
    mask: "Tensor | None" = None
    """Which tokens count `[1, L]`, where padding is among them and the model is told so; None for all."""
    layers: "Tensor | None" = None
    """Features of the same tokens by each layer of another encoder `[layers, 1, L, D'']`."""
    glyphs: "Tensor | None" = None
    """Features of the letters of what is to be read in the video `[1, G, D']`."""

    @property
    def num_tokens(self) -> int:
        return self.tokens.shape[1] + (0 if self.glyphs is None else self.glyphs.shape[1])

    @property
    def tensors(self) -> "list[Tensor]":
        """All of it."""
        return [each for each in vars(self).values() if each is not None]


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """An encoded prompt: a text for each pass of a step. `uncond` is the negative prompt's, where there is guidance."""

    cond: Text
    uncond: Text | None = None

    @property
    def texts(self) -> list[Text]:
        """One a pass, in the order in which the passes run."""
        return [self.cond] if self.uncond is None else [self.cond, self.uncond]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """What to sample: a seed, a size in pixels and frames, denoising steps, and how it is guided.

    `guidance` is what the family's pipeline calls `guidance_scale`, `guidance_2` that of a second transformer (None for
    the same), and `true_cfg_scale` that of guidance by a negative prompt beside an embedded scale.
    """

    seed: int
    height: int
    width: int
    num_frames: int
    steps: int
    guidance: float
    guidance_2: float | None = None
    true_cfg_scale: float | None = None
    negative_prompt: str | None = None


def guided(velocities: "list[Tensor]", scale: float | None) -> "Tensor":
    """The velocity of all passes of a step: away from what the second one says, where there is one."""
    cond, *others = velocities
    return cond if not others else others[0] + (scale or 1.0) * (cond - others[0])


def sequence_length(template: Json | None, default: int) -> int:
    """To which prompts are padded: as the pipeline has it, or what `resca.json` has as `max_sequence_length`."""
    length = (template or {}).get("max_sequence_length", default)
    assert isinstance(length, int)
    return length


# How many tokens a text has, with what the tokenizer puts around it.
TokenCount = Callable[[str], int]
# Called after each step with the pipeline, the step, its timestep and {"latents": ...}; what it returns is put in.
StepCallback = Callable[["DiffusionPipeline", int, "Tensor", dict[str, "Tensor"]], dict[str, "Tensor"]]


class Family(Protocol):
    """A family of models. Torch and diffusers are imported by those methods alone that take a pipeline."""

    pipeline: str
    """The class of diffusers that model_index.json names."""

    medium: Medium
    """What it makes: videos or images."""

    classes: Mapping[str, str]
    """Of components that have to be of one class: its name in diffusers."""

    transformers: tuple[str, ...]
    """The components that denoise, in the order in which they take over; where there are several, some may be null."""

    text_encoders: tuple[str, ...]
    """The components with weights that only `encode` needs."""

    tokenizers: tuple[str, ...]
    """The components without weights that only `encode` needs."""

    loop: tuple[str, ...]
    """The components without weights that the loop goes by, each with a `NAME_config.json`; the scheduler is first."""

    vae_dtypes: Mapping[str, Dtype]
    """The number format of the VAE by the model's, where it is another."""

    text_tokens: int
    """The most that a pass looks at."""

    cross_attention: bool
    """Whether the video attends to the text apart from itself."""

    doubles_batch: bool
    """Whether both passes of guidance are halves of one batch, to the model, and not two calls."""

    predicts_epsilon: bool
    """Whether the model predicts epsilon, and not a velocity."""

    decodes_tiles: bool
    """Whether the VAE decodes tile by tile, as of videos; images are decoded whole."""

    def obstacle(self, index: Json) -> str | None:
        """Why a model with this `model_index.json` cannot be rendered, to follow its name; None if it can."""
        ...

    def prompt_obstacle(self, index: Json, prompt: str) -> str | None:
        """Why a model with this `model_index.json` cannot be asked for that, in a sentence; None if it can."""
        ...

    def defaults(self, configs: Configs) -> GenerationDefaults:
        """Of a model with these; pydantic's ValidationError for what makes no sense."""
        ...

    def guides(self, configs: Configs) -> frozenset[str]:
        """Those of `GUIDES` that a model takes; errors as of `defaults`."""
        ...

    def negative_prompt(self, sampling: Sampling) -> str | None:
        """The text of a second pass in each step, by which the first is guided; None where one is all."""
        ...

    def numbers(self, configs: Configs) -> Numbers:
        """What decides which sizes can be rendered; errors as of `defaults`."""
        ...

    def levels_by_token(self, index: Json) -> bool:
        """Whether a model with this `model_index.json` is told the noise level of each token; that costs more."""
        ...

    def prompt_room(self, count: TokenCount, template: Json | None) -> int | None:
        """The tokens of a prompt, without what is put around it, that `encode` takes; None if that is not known.

        `count` is of the first of the tokenizers.
        """
        ...

    def encode(self, pipeline: "DiffusionPipeline", text: str, template: Json | None) -> Text:
        """Run the text encoders; `template` is put around the prompt instead of the pipeline's own."""
        ...

    def latent_shape(self, pipeline: "DiffusionPipeline", sampling: Sampling) -> tuple[int, ...]:
        """Of the noise: `[1, C, F, H, W]`, of an image `[1, C, H, W]`."""
        ...

    def set_timesteps(self, pipeline: "DiffusionPipeline", sampling: Sampling, steps: int) -> None:
        """Have the scheduler set its noise levels as the pipeline's own loop of so many steps will, at this size."""
        ...

    def levels(self, pipeline: "DiffusionPipeline") -> list[float]:
        """The noise level of each step that is set: sigma, and of epsilon what stands for it (`caching.models`)."""
        ...

    def stages(self, pipeline: "DiffusionPipeline", sampling: Sampling, steps: int) -> list[range]:
        """The steps of each transformer that the pipeline has, of a loop of so many."""
        ...

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
        """The denoising loop of `steps` as the pipeline itself runs it, from noise to final latents.

        Latents `[1, C, F, H, W]` are those of a video, or a rank's tokens in a column (`caching.engine.column`). They
        are float32, and stay so if the transformer answers in float32. A scheduler that has done some steps already
        sets the timesteps of the rest.
        """
        ...

    def velocity(
        self, pipeline: "DiffusionPipeline", latents: "Tensor", level: float, prompt: Prompt, sampling: Sampling
    ) -> "Tensor":
        """What the bare transformer says of latents `[1, C, F, H, W]` at a noise level; the same shape."""
        ...

    def decode(self, pipeline: "DiffusionPipeline", latents: "Tensor", group: "RankGroup") -> Iterator["Tensor"]:
        """The frames of final latents in pieces `[1, 3, f, H', W']`, in order, from -1 to 1.

        All ranks decode; rank 0 gets the pieces, and the others have to run the iterator to its end, too.
        """
        ...
