"""Training of the demo model's video VAE.

Legend: B batch, C colour channels, F frames, H height, W width.
"""

import time
from dataclasses import dataclass
from random import Random
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from jobs.demo.architecture import LATENT_CHANNELS, build_vae
from jobs.demo.scenes import draw, sample_scenes

POOL_SIZE = 384
KL_WEIGHT = 1e-4


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Steps on crops of one size, under one warm-up and one cool-down of the learning rate."""

    steps: int
    batch: int
    frames: int
    side: int
    learning_rate: float = 8e-4
    decoder_only: bool = False


# Small crops first, for many steps; then longer ones, which teach motion; last nearly whole videos, because group norms
# see the statistics of the whole view.
STAGES = (
    Stage(steps=1700, batch=4, frames=5, side=48),
    Stage(steps=1200, batch=2, frames=9, side=64),
    Stage(steps=120, batch=1, frames=17, side=112, learning_rate=2e-4),
    Stage(steps=300, batch=1, frames=17, side=112, learning_rate=5e-4, decoder_only=True),
)


def train_vae(*, stages: tuple[Stage, ...] = STAGES, device: torch.device, seed: int = 0) -> tuple[Any, float]:
    """Train the VAE on crops of drawn videos; return it with its last smoothed L1 error (pixels in -1..1)."""
    torch.manual_seed(seed)
    pool, random = draw_pool(seed), Random(seed)
    vae = build_vae().to(device).train()
    initialise(vae)
    error = 1.0
    for stage in stages:
        error = run_stage(vae, stage, pool, random)
    return vae.eval(), error


def run_stage(vae: Any, stage: Stage, pool: Tensor, random: Random) -> float:
    """Train in place; returns the last smoothed L1 error."""
    vae.encoder.requires_grad_(not stage.decoder_only)
    vae.quant_conv.requires_grad_(not stage.decoder_only)
    trained = [parameter for parameter in vae.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=stage.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=stage.learning_rate, total_steps=stage.steps, pct_start=0.05
    )
    smoothed, started = 1.0, time.monotonic()
    for step in range(stage.steps):
        video = crop_batch(pool, random, stage.batch, stage.frames, stage.side).to(vae.device)
        reconstruction, kl = reconstruct(vae, video)
        error = F.l1_loss(reconstruction, video)
        loss = error + F.mse_loss(reconstruction, video) + KL_WEIGHT * kl
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 5.0)
        optimizer.step()
        schedule.step()
        smoothed += (error.item() - smoothed) * max(0.01, 1 / (step + 1))
        if step % 100 == 0:
            seconds = time.monotonic() - started
            print(f"vae {step}/{stage.steps}  L1 {smoothed:.4f}  KL {kl.item():.2f}  {seconds:.0f} s", flush=True)
    return smoothed


def initialise(vae: Any) -> None:
    """Begin as a linear autoencoder (silent residual branches) with little noise, which learns several times faster."""
    for name, module in vae.named_modules():
        if isinstance(module, torch.nn.Conv3d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)
            if name.endswith("conv2.conv"):
                torch.nn.init.zeros_(module.weight)
    with torch.no_grad():
        vae.quant_conv.bias[LATENT_CHANNELS:] = -6


def draw_pool(seed: int) -> Tensor:
    """Training videos `[B, F, H, W, C]` as bytes."""
    scenes = sample_scenes(POOL_SIZE, seed, held_out=False)
    return torch.stack([(draw(scene, seed + index) * 255).byte() for index, scene in enumerate(scenes)])


def crop_batch(pool: Tensor, random: Random, batch: int, frames: int, side: int) -> Tensor:
    """Random crops `[B, C, F, H, W]` in -1..1."""
    crops = []
    for _ in range(batch):
        video = pool[random.randrange(len(pool))]
        first, top, left = (
            random.randint(0, whole - part) for whole, part in zip(video.shape[:3], (frames, side, side), strict=True)
        )
        crops.append(video[first : first + frames, top : top + side, left : left + side])
    return torch.stack(crops).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def reconstruct(vae: Any, video: Tensor) -> tuple[Tensor, Tensor]:
    """Encode, sample and decode; return the reconstruction and the mean KL divergence of a latent value."""
    posterior = vae.encode(video).latent_dist
    reconstruction = vae.decode(posterior.sample()).sample
    mean, logvar = posterior.mean, posterior.logvar
    return reconstruction, 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
