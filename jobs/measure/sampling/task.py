"""What is asked of a loaded model, one call at a time; each task can be sent to the ranks of a gang.

Legend: T steps, C latent channels, F H W latent frames, height and width.
"""

import math
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from caching.recipe.recipe import Recipe
from jobs.measure.fidelity import psnr_db
from jobs.rank.encoding import encode_together
from jobs.rank.renderer import Prompt, Renderer, Sampling
from jobs.rank.solver import Solver
from jobs.request.guidance import Guides, sampling_of
from jobs.request.prompts import Item

Answer = TypeVar("Answer", covariant=True)


@dataclass
class Model:
    """A renderer that encodes each prompt once; `encodes` says whether this rank does, or takes it from rank 0."""

    renderer: Renderer
    guides: Guides
    encodes: bool = True
    progress: float = 0.0
    """How much of the task is done that takes steps, 0 to 1."""
    beats: int = 0
    """Changes with each step that is done."""
    _prompts: dict[tuple[str, str | None], Prompt] = field(default_factory=dict)

    def sampling(self, item: Item) -> Sampling:
        """What an item of the prompt file asks for."""
        return sampling_of(item, self.guides)

    def prompt(self, item: Item) -> Prompt:
        """The texts of an item."""
        texts = item.prompt, self.renderer.family.negative_prompt(self.sampling(item))
        if texts not in self._prompts:
            self._prompts[texts] = encode_together(self.renderer, *texts, here=self.encodes)
        return self._prompts[texts]

    def beat(self, part: float) -> None:
        """A step is done."""
        self.progress, self.beats = part, self.beats + 1


class Task(Protocol[Answer]):
    """One call; run on every rank of a gang."""

    @property
    def key(self) -> str | None:
        """What the answer depends on beside the model, in short; None where it is not worth keeping."""
        ...

    def run(self, model: Model) -> Answer: ...


@dataclass(frozen=True, kw_only=True)
class SolverOf:
    """The steps of a scheduler on an item."""

    item: Item
    key: str | None = None

    def run(self, model: Model) -> Solver:
        return model.renderer.solver(model.sampling(self.item))


@dataclass(frozen=True, kw_only=True)
class Takeovers:
    """The steps of an item, from 1, at which a next transformer takes over."""

    item: Item
    key: str | None = None

    def run(self, model: Model) -> tuple[int, ...]:
        sampling = model.sampling(self.item)
        stages = model.renderer.family.stages(model.renderer.pipeline, sampling, sampling.steps)
        return tuple(stage.start for stage in stages if 0 < stage.start < sampling.steps)


@dataclass(frozen=True, kw_only=True)
class Noise:
    """What sampling begins with `[1, C, F, H, W]`."""

    item: Item
    key: str | None = None

    def run(self, model: Model) -> Tensor:
        return model.renderer.noise(model.sampling(self.item)).cpu()


@dataclass(frozen=True, kw_only=True)
class Trajectory:
    """The latents of full sampling `[T + 1, C, F, H, W]`."""

    item: Item

    @property
    def key(self) -> str:
        return f"trajectory {_said(self.item)}"

    def run(self, model: Model) -> Tensor:
        return model.renderer.trajectory(model.prompt(self.item), model.sampling(self.item), model.beat)


@dataclass(frozen=True, kw_only=True)
class Velocity:
    """What the model says of latents `[1, C, F, H, W]` at a noise level; the same shape."""

    item: Item
    latents: Tensor
    level: float

    @property
    def key(self) -> str:
        return f"velocity {_said(self.item)} {self.level!r} {_digest(self.latents)}"

    def run(self, model: Model) -> Tensor:
        latents = self.latents.to(model.renderer.device)
        return model.renderer.velocity(latents, self.level, model.prompt(self.item), model.sampling(self.item)).cpu()


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The final latents `[1, C, F, H, W]` by a method."""

    item: Item
    method: Recipe

    @property
    def key(self) -> str:
        return f"sample {_said(self.item)} {self.method}"

    def run(self, model: Model) -> Tensor:
        renderer = model.renderer
        if renderer.engine is None or renderer.engine.recipe != self.method:
            renderer.use(self.method)
        return renderer.denoise(model.prompt(self.item), model.sampling(self.item), model.beat).cpu()


@dataclass(frozen=True, kw_only=True)
class Fidelity:
    """PSNR of the videos that latents decode to, in dB, against that of a reference, which is decoded once."""

    latents: tuple[Tensor, ...]
    reference: Tensor

    @property
    def key(self) -> str:
        return f"fidelities {' '.join(map(_digest, self.latents))} {_digest(self.reference)}"

    def run(self, model: Model) -> list[float]:
        """On other ranks than the first, which have no frames, not numbers."""
        full = _frames(model, self.reference)
        videos = (_frames(model, each) for each in self.latents)
        return [math.nan if full is None or mine is None else psnr_db(mine, full) for mine in videos]


def _frames(model: Model, latents: Tensor) -> np.ndarray | None:
    """uint8 `[frames, height, width, 3]`; None on ranks that have none."""
    frames = list(model.renderer.frames(latents.to(model.renderer.device)))
    return np.concatenate(frames) if frames else None


def _said(item: Item) -> str:
    return item.model_dump_json(exclude={"where", "id"})


def _digest(tensor: Tensor) -> str:
    return sha256(tensor.contiguous().view(torch.uint8).numpy().tobytes()).hexdigest()
