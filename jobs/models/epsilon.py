"""What families share whose model predicts epsilon, and a variance beside it: both passes of guidance are one batch.

Legend: B members of the batch, C latent channels, H W latent height and width.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from jobs.models.family import Dtype, Json, Prompt, Sampling, StepCallback
from jobs.models.loop import run_steps

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor


class OfEpsilon(ABC):
    """A `Family` but for what is its own: components, sizes, texts, and how its model is called."""

    transformers: tuple[str, ...] = ("transformer",)
    loop: tuple[str, ...] = ("scheduler",)
    vae_dtypes: Mapping[str, Dtype] = MappingProxyType({})
    doubles_batch = True
    predicts_epsilon = True
    decodes_tiles = False

    def obstacle(self, index: Json) -> str | None:
        return None

    def prompt_obstacle(self, index: Json, prompt: str) -> str | None:
        return None

    def levels_by_token(self, index: Json) -> bool:
        return False

    def set_timesteps(self, pipeline: "DiffusionPipeline", sampling: Sampling, steps: int) -> None:
        pipeline.scheduler.set_timesteps(steps)

    def levels(self, pipeline: "DiffusionPipeline") -> list[float]:
        from caching.models.levels import levels_of_epsilon

        scheduler = pipeline.scheduler
        return levels_of_epsilon(scheduler.alphas_cumprod[scheduler.timesteps.cpu()])

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
        """The pipelines' `__call__` cannot go on in the middle, and some draw their own noise."""
        self.set_timesteps(pipeline, sampling, steps)

        def predict(latents: "Tensor", timestep: "Tensor") -> "Tensor":
            return self.epsilon(pipeline, latents, timestep, prompt, sampling)

        return run_steps(pipeline, latents, predict, steps=steps, on_step_end=on_step_end)

    def velocity(
        self, pipeline: "DiffusionPipeline", latents: "Tensor", level: float, prompt: Prompt, sampling: Sampling
    ) -> "Tensor":
        """Epsilon; `level` is that of the timestep, a fraction of all."""
        import torch

        number = round(level * pipeline.scheduler.config.num_train_timesteps)
        timestep = torch.tensor(number, device=pipeline._execution_device)
        return self.epsilon(pipeline, latents.to(timestep.device), timestep, prompt, sampling).float()

    @abstractmethod
    def epsilon(
        self,
        pipeline: "DiffusionPipeline",
        latents: "Tensor",
        timestep: "Tensor",
        prompt: Prompt,
        sampling: Sampling,
    ) -> "Tensor":
        """What the transformer says of latents `[1, C, ...]`, guided; of the same shape."""


def without_variance(prediction: "Tensor", num_channels: int) -> "Tensor":
    """Epsilon `[B, C, ...]` of what may have a variance behind it, as many channels again."""
    return prediction[:, :num_channels]
