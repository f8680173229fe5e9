"""What families share whose model predicts epsilon, and a variance beside it: both passes of guidance are one batch.

Legend: B members of the batch, C latent channels, H W latent height and width.
"""

from typing import TYPE_CHECKING

from jobs.models.family import Prompt, Sampling
from jobs.models.loop import OwnLoop

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor


class OfEpsilon(OwnLoop):
    """A `Family` but for what is its own: components, sizes, texts, and how its model is called."""

    doubles_batch = True
    predicts_epsilon = True

    def set_timesteps(self, pipeline: "DiffusionPipeline", sampling: Sampling, steps: int) -> None:
        pipeline.scheduler.set_timesteps(steps)

    def levels(self, pipeline: "DiffusionPipeline") -> list[float]:
        from caching.models.levels import levels_of_epsilon

        scheduler = pipeline.scheduler
        return levels_of_epsilon(scheduler.alphas_cumprod[scheduler.timesteps.cpu()])

    def velocity(
        self, pipeline: "DiffusionPipeline", latents: "Tensor", level: float, prompt: Prompt, sampling: Sampling
    ) -> "Tensor":
        """Epsilon; `level` is that of the timestep, a fraction of all."""
        import torch

        number = round(level * pipeline.scheduler.config.num_train_timesteps)
        timestep = torch.tensor(number, device=pipeline._execution_device)
        return self.predict(pipeline, latents.to(timestep.device), timestep, prompt, sampling).float()


def without_variance(prediction: "Tensor", num_channels: int) -> "Tensor":
    """Epsilon `[B, C, ...]` of what may have a variance behind it, as many channels again."""
    return prediction[:, :num_channels]
