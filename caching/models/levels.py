"""Noise levels that differ from token to token, in models that are told each token's (Wan 2.2 TI2V).

Legend: B batch, N tokens.
"""

from collections.abc import Callable

from torch import Tensor

from caching.models.adapter import Inputs


def with_levels(inputs: Inputs, pick: Callable[[Tensor], Tensor]) -> Inputs:
    """The inputs with those noise levels that `pick` takes of the tokens' `[B, N]`; as they are with one for all."""
    timestep = inputs.get("timestep")
    if timestep is None or timestep.ndim < 2:
        return inputs
    return {**inputs, "timestep": pick(timestep)}


def levels_of_epsilon(kept: Tensor) -> list[float]:
    """The noise level of each step of a model of epsilon, given how much of the variance is signal `[steps]`.

    A sampler has latents `sqrt(kept) x0 + sqrt(1 - kept) epsilon` (`alphas_cumprod` of diffusers). Divided by
    `sqrt(kept)` they are `x0 + level * epsilon`, and DDIM moves them by epsilon times the change of the level: what
    rests on a velocity in sigma holds for epsilon as it stands.
    """
    return (((1 - kept) / kept) ** 0.5).tolist()
