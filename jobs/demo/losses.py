"""What demo models are trained on: flow matching, or epsilon and its variance.

Legend: B batch, C latent channels, F H W latent frames, height and width; levels are 0..1, where 1 is noise alone.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def flow_matching(velocity: Callable[[Tensor], Tensor], clean: Tensor, noise: Tensor, level: Tensor) -> Tensor:
    """Mean squared error of the velocity `noise - clean` of `(1 - level) * clean + level * noise`, all `[B, ...]`."""
    weight = level.view(-1, *[1] * (clean.ndim - 1))
    return F.mse_loss(velocity((1 - weight) * clean + weight * noise).float(), noise - clean)


def epsilon_and_variance(
    predict: Callable[[Tensor, Tensor], Tensor], clean: Tensor, noise: Tensor, level: Tensor, signal: Tensor
) -> Tensor:
    """Mean squared error of epsilon, and what bounds the likelihood, by which the variance alone learns.

    Nichol and Dhariwal (2021), Eq. 14 to 16, as DiT is trained. `predict` is given latents `[B, C, H, W]` and their
    timesteps `[B]`; `signal` is the scheduler's `alphas_cumprod` `[T]`.
    """
    timestep = (level * len(signal)).long().clamp(max=len(signal) - 1)
    before = torch.cat([signal.new_ones(1), signal[:-1]])
    betas = 1 - signal / before
    posterior = (1 - before) / (1 - signal) * betas
    posterior = torch.cat([posterior[1:2], posterior[1:]]).log()  # the first one would be 0
    kept, beta, variance = (table[timestep].view(-1, 1, 1, 1) for table in (signal, betas, posterior))
    epsilon, part = predict(kept.sqrt() * clean + (1 - kept).sqrt() * noise, timestep).float().chunk(2, dim=1)
    predicted = torch.lerp(variance, beta.log(), (part + 1) / 2)
    between_means = beta.square() / ((1 - kept) * (1 - beta)) * (epsilon.detach() - noise).square()
    bound = predicted - variance - 1 + (variance - predicted).exp() + between_means * (-predicted).exp()
    return F.mse_loss(epsilon, noise) + 0.5 * bound.mean()
