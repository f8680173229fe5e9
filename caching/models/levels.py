"""Noise levels: those of tokens apart (Wan 2.2 TI2V), and what stands for them in models of epsilon.

Legend: B batch, N tokens.
"""

from collections.abc import Callable
from math import hypot, log

from torch import Tensor

from caching.models.adapter import Inputs

LEAST = 1e-6  # of noise and of signal: all of one says nothing of the other


def with_levels(inputs: Inputs, pick: Callable[[Tensor], Tensor]) -> Inputs:
    """The inputs with those noise levels that `pick` takes of the tokens' `[B, N]`; as they are with one for all."""
    timestep = inputs.get("timestep")
    if timestep is None or timestep.ndim < 2:
        return inputs
    return {**inputs, "timestep": pick(timestep)}


def levels_of_epsilon(kept: Tensor) -> list[float]:
    """The noise level of each step of a model of epsilon, given how much of the variance is signal `[steps]`.

    A sampler has latents `sqrt(kept) x0 + sqrt(1 - kept) epsilon` (`alphas_cumprod` of diffusers). Divided by the sum
    of the two roots they are `(1 - sigma) x0 + sigma epsilon`, as models of a velocity have them, and DDIM moves them
    by `epsilon - x0` times the change of sigma: so what rests on a velocity in sigma holds for epsilon, too.
    """
    signal, noise = kept.sqrt(), (1 - kept).sqrt()
    return (noise / (signal + noise)).tolist()


def time_of(sigma: float, *, of_epsilon: bool) -> float:
    """What derivatives are taken by at a noise level: itself, or of models of epsilon the log of noise over signal.

    What a model of epsilon says of x0 moves evenly with that logarithm (DPM-Solver, Lu et al., NeurIPS 2022).
    """
    if not of_epsilon:
        return sigma
    noise = _inside(sigma)
    return log(noise / (1 - noise))


def velocity_of_epsilon(epsilon: Tensor, latents: Tensor, sigma: float) -> Tensor:
    """`epsilon - x0`, where latents are of variance 1; all of one shape, at a noise level of `levels_of_epsilon`."""
    signal, total = _parts(sigma)
    return (total * epsilon - latents) / signal


def epsilon_of_velocity(velocity: Tensor, latents: Tensor, sigma: float) -> Tensor:
    """The inverse."""
    signal, total = _parts(sigma)
    return (signal * velocity + latents) / total


def _parts(sigma: float) -> tuple[float, float]:
    """The factor of x0 in latents of variance 1, and the sum of it and that of epsilon."""
    noise = _inside(sigma)
    total = 1 / hypot(noise, 1 - noise)
    return (1 - noise) * total, total


def _inside(sigma: float) -> float:
    return min(max(sigma, LEAST), 1 - LEAST)
