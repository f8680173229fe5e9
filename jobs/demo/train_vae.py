"""Training of the demo model's video VAE.

Legend: B batch, C colour channels, F frames, H height, W width.
"""

import time
from random import Random

import torch
from diffusers import AutoencoderKLHunyuanVideo
from torch import Tensor
from torch.nn import functional as F

from jobs.demo.architecture import LATENT_CHANNELS, build_vae
from jobs.demo.scenes import draw, sample_scenes

POOL_SIZE = 384
KL_WEIGHT = 1e-4
# (batch, frames, height and width) of the crops: small ones first, for many steps; then nearly whole frames, because
# group norms see the statistics of the whole view.
CROPS, LAST_CROPS, LAST_PART = (4, 5, 48), (2, 5, 112), 0.15


def train_vae(*, steps: int, device: torch.device, seed: int = 0) -> tuple[AutoencoderKLHunyuanVideo, float]:
    """Train the VAE on crops of drawn videos; return it with its last smoothed L1 error (pixels in -1..1)."""
    torch.manual_seed(seed)
    pool = draw_pool(seed)
    random = Random(seed)
    vae = build_vae().to(device).train()
    initialise(vae)
    optimizer = torch.optim.AdamW(vae.parameters(), lr=8e-4, betas=(0.9, 0.99), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=8e-4, total_steps=steps, pct_start=0.05)
    smoothed, started = 1.0, time.monotonic()
    for step in range(steps):
        video = crop_batch(pool, random, *(CROPS if step < (1 - LAST_PART) * steps else LAST_CROPS)).to(device)
        reconstruction, kl = reconstruct(vae, video)
        error = F.l1_loss(reconstruction, video)
        loss = error + F.mse_loss(reconstruction, video) + KL_WEIGHT * kl
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 5.0)
        optimizer.step()
        schedule.step()
        smoothed += (error.item() - smoothed) * max(0.01, 1 / (step + 1))
        if step % 100 == 0:
            seconds = time.monotonic() - started
            print(f"vae {step}/{steps}  L1 {smoothed:.4f}  KL {kl.item():.2f}  {seconds:.0f} s", flush=True)
    return vae.eval(), smoothed


def initialise(vae: AutoencoderKLHunyuanVideo) -> None:
    """Begin as a linear autoencoder (silent residual branches) with little noise, which learns several times faster."""
    for name, module in vae.named_modules():
        if isinstance(module, torch.nn.Conv3d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
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


def reconstruct(vae: AutoencoderKLHunyuanVideo, video: Tensor) -> tuple[Tensor, Tensor]:
    """Encode, sample and decode; return the reconstruction and the mean KL divergence of a latent value."""
    posterior = vae.encode(video).latent_dist
    reconstruction = vae.decode(posterior.sample()).sample
    mean, logvar = posterior.mean, posterior.logvar
    return reconstruction, 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
