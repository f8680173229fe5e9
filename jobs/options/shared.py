"""What the options of several commands share, as plain dataclasses that cost nothing to import."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Weights = Literal["plain", "fp8"]
Count = Annotated[int | None, tyro.conf.arg(metavar="INT")]
Number = Annotated[float | None, tyro.conf.arg(metavar="FLOAT")]
Text = Annotated[str | None, tyro.conf.arg(metavar="STR")]
File = Annotated[Path | None, tyro.conf.arg(metavar="PATH")]


@dataclass(frozen=True, kw_only=True)
class MethodOptions:
    """How denoising steps are skipped; an option left out takes the method's own default."""

    interval: Count = None
    """Steps from one dense step to the next."""
    clusters: Count = None
    """Clusters (and so proxy tokens) of the whole video."""
    order: Count = None
    """Highest order of the predicted residuals."""
    update: Text = None
    """How ResCa's tokens follow their proxies: implicit (backward Euler at order 1) or explicit."""
    feature: Text = None
    """What is cached: output, residual (output less latents), stack (what all blocks add), delta (what most add),
    half_delta, block, module or attention."""
    ratio: Number = None
    """Part of the tokens that sparse steps do not compute."""
    score: Text = None
    """How the others are chosen: random, similarity, key_norm, value_norm or attention; NAME:min for the lowest."""
    threshold: Number = None
    """Change of the input (teacache) or of the output (easycache) at which a step is dense again."""
    plan: File = None
    """The recipe that `resca tune` wrote, for the method auto."""

    def given(self) -> dict[str, Any]:
        """The options that were set."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class PromptOptions:
    """What prompts are made of beside the lines of a file."""

    template: Text = None
    """In place of a prompt file: a prompt for each row of a table, such as "a {animal} in {place}"."""
    table: File = None
    """The .csv or .tsv file whose columns the template names; columns such as width are settings."""
    seeds: Text = None
    """Render each prompt with each of these seeds, such as 0..4."""


@dataclass(frozen=True, kw_only=True)
class VideoOptions:
    """What each video looks like; an option left out takes the model's own default."""

    steps: Count = None
    """Denoising steps."""
    height: Count = None
    """Height in pixels."""
    width: Count = None
    """Width in pixels."""
    num_frames: Count = None
    """Frames of each video."""
    fps: Count = None
    """Frames per second of the MP4."""
    guidance: Number = None
    """Guidance scale: embedded in the model, or that of guidance by a negative prompt."""
    guidance_2: Number = None
    """The same of a second transformer, which takes over at low noise."""
    true_cfg_scale: Number = None
    """Scale of guidance by a negative prompt where --guidance is embedded; above 1 it takes two passes a step."""
    negative_prompt: Text = None
    """What videos are guided away from."""
    seed: int = 0
    """Seed of the first prompt; prompt number i takes seed + i unless it brings its own."""
    dtype: Dtype = "auto"
    """Number format of the model; auto is the one its weights are stored in."""
    variant: Text = None
    """Which weights to take of a model that has several: fp16 reads model.fp16.safetensors, as in diffusers."""
    compile: tyro.conf.FlagCreatePairsOff[bool] = False
    """Compile the model's blocks: minutes before the first video, faster steps after."""


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """Where a job goes, and whether it is followed."""

    dashboard: Text = None
    """The job interface, http://HOST:8265; by default RAY_API_SERVER_ADDRESS."""
    follow: bool = True
    """Show what the job says and end with its exit code; without it, return as soon as it is accepted."""
