"""What families of images share whose model predicts a velocity, and whose scheduler knows noise levels as sigmas.

Legend: C latent channels, H W latent height and width.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from jobs.models.autoencoder_kl import decode_images
from jobs.models.family import Prompt, Sampling
from jobs.models.loop import OwnLoop

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor

    from parallel.rank_group import RankGroup


class OfFlow(OwnLoop):
    """A `Family` but for what is its own: components, sizes, texts, timesteps, and how its model is called."""

    predicts_epsilon = False

    def levels(self, pipeline: "DiffusionPipeline") -> list[float]:
        return pipeline.scheduler.sigmas[:-1].tolist()

    def velocity(
        self, pipeline: "DiffusionPipeline", latents: "Tensor", level: float, prompt: Prompt, sampling: Sampling
    ) -> "Tensor":
        import torch

        device = pipeline._execution_device
        timestep = torch.tensor(level * pipeline.scheduler.config.num_train_timesteps, device=device)
        return self.predict(pipeline, latents.to(device), timestep, prompt, sampling).float()

    def decode(self, pipeline: "DiffusionPipeline", latents: "Tensor", group: "RankGroup") -> Iterator["Tensor"]:
        config = pipeline.vae.config
        return decode_images(pipeline.vae, latents / config.scaling_factor + config.shift_factor, group)
