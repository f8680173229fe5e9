"""The loop of those pipelines that tell nobody of their steps, or whose latents have to be a rank's own.

Legend: C latent channels, F H W latent frames, height and width.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from jobs.models.family import StepCallback

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from torch import Tensor

# Given latents and a timestep, what the scheduler takes: a velocity or epsilon, guided, of the latents' shape.
Predict = Callable[["Tensor", "Tensor"], "Tensor"]


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
