"""The loop of those pipelines that tell nobody of their steps, or whose latents have to be a rank's own.

Legend: C latent channels, F H W latent frames, height and width.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING

from jobs.models.family import Configs, Dtype, Json, Prompt, Sampling, StepCallback, Text, guided

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor

# Given latents and a timestep, what the scheduler takes: a velocity or epsilon, guided, of the latents' shape.
Predict = Callable[["Tensor", "Tensor"], "Tensor"]
# Given latents `[B, C, ...]` and as many texts, what the model makes of each.
Answer = Callable[["Tensor", Sequence[Text]], "Tensor"]


class OwnLoop(ABC):
    """What families share that sample by `run_steps`: one transformer, whose passes `predict` calls."""

    transformers: tuple[str, ...] = ("transformer",)
    loop: tuple[str, ...] = ("scheduler",)
    vae_dtypes: Mapping[str, Dtype] = MappingProxyType({})
    decodes_tiles = False

    def obstacle(self, index: Json) -> str | None:
        return None

    def prompt_obstacle(self, index: Json, prompt: str) -> str | None:
        return None

    def guides(self, configs: Configs) -> frozenset[str]:
        return frozenset({"guidance", "negative_prompt"})

    def negative_prompt(self, sampling: Sampling) -> str | None:
        return sampling.negative_prompt or "" if sampling.guidance > 1 else None

    def levels_by_token(self, index: Json) -> bool:
        return False

    @abstractmethod
    def set_timesteps(self, pipeline: "DiffusionPipeline", sampling: Sampling, steps: int) -> None:
        """As the pipeline's own loop does."""

    def stages(self, pipeline: "DiffusionPipeline", sampling: Sampling, steps: int) -> list[range]:
        return [range(steps)]

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
        """The pipelines' `__call__` does not take a rank's latents, rounds them, or cannot go on in the middle."""
        self.set_timesteps(pipeline, sampling, steps)

        def predict(latents: "Tensor", timestep: "Tensor") -> "Tensor":
            return self.predict(pipeline, latents, timestep, prompt, sampling)

        return run_steps(pipeline, latents, predict, steps=steps, on_step_end=on_step_end)

    @abstractmethod
    def predict(
        self,
        pipeline: "DiffusionPipeline",
        latents: "Tensor",
        timestep: "Tensor",
        prompt: Prompt,
        sampling: Sampling,
    ) -> "Tensor":
        """What the scheduler takes of latents `[1, C, ...]`: a velocity or epsilon, guided; of the same shape."""


def in_one_batch(answer: Answer, latents: "Tensor", prompt: Prompt, scale: float, *, cond_first: bool) -> "Tensor":
    """What guidance makes of the passes of a step, which are one call for latents `[1, C, ...]`; of the same shape.

    `answer` gets the latents as often as there are texts, and these; that of the prompt is its first or its last one.
    """
    import torch

    order = slice(None) if cond_first else slice(None, None, -1)
    texts = prompt.texts[order]
    answers = answer(torch.cat([latents] * len(texts)), texts).chunk(len(texts))
    return guided(list(answers)[order], scale)


def run_steps(
    pipeline: "DiffusionPipeline",
    latents: "Tensor",
    predict: Predict,
    *,
    steps: int,
    on_step_end: StepCallback | None = None,
) -> "Tensor":
    """Latents `[1, C, F, H, W]` or `[1, C, H, W]` after all timesteps that the scheduler has set.

    Of a loop of so many steps the first ones may be done already: the timesteps are then those of the rest.
    """
    scheduler = pipeline.scheduler
    timesteps = scheduler.timesteps
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    for step, timestep in enumerate(timesteps, start=steps - len(timesteps)):
        prediction = predict(latents, timestep.to(pipeline._execution_device))
        latents = scheduler.step(prediction, timestep, latents, return_dict=False)[0]
        if on_step_end is not None:
            latents = on_step_end(pipeline, step, timestep, {"latents": latents}).get("latents", latents)
    return latents
