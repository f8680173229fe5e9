"""Training of a demo model's VAE.

Legend: B batch, C colour channels, F frames, H height, W width.
"""

import time
from random import Random
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from jobs.demo.scenes import draw, sample_scenes
from jobs.demo.trainee import LATENT_CHANNELS, AnyVae, Stage, Vae

KL_WEIGHT = 1e-4


def train_vae(vae: Vae, stages: tuple[Stage, ...], *, device: torch.device, seed: int = 0) -> tuple[Vae, float]:
    """Train a new VAE on drawn videos; return it with its last smoothed L1 error (pixels in -1..1)."""
    random = Random(seed)
    torch.nn.Module.to(vae.train(), device)
    initialise(vae)
    error = 1.0
    for stage in stages:
        error = run_stage(vae, stage, random)
    return vae.eval(), error


def run_stage(vae: AnyVae, stage: Stage, random: Random) -> float:
    """Train in place; returns the last smoothed L1 error."""
    for part in (vae.encoder, _quant_conv(vae)):
        part.requires_grad_(not stage.decoder_only)
    trained = [parameter for parameter in vae.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=stage.learning_rate, betas=(0.9, 0.99), weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=stage.learning_rate, total_steps=stage.steps, pct_start=0.05
    )
    smoothed, started = 1.0, time.monotonic()
    for step in range(stage.steps):
        video = as_it_takes(vae, draw_batch(random, stage).to(vae.device))
        reconstruction, kl = reconstruct(vae, video)
        error = F.l1_loss(reconstruction, video)
        loss = error + F.mse_loss(reconstruction, video) + KL_WEIGHT * kl
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 5.0)
        optimizer.step()
        schedule.step()
        smoothed += (error.item() - smoothed) * max(0.01, 1 / (step + 1))
        if step % 50 == 0:
            seconds = time.monotonic() - started
            print(f"vae {step}/{stage.steps}  L1 {smoothed:.4f}  KL {kl.item():.2f}  {seconds:.0f} s", flush=True)
    return smoothed


def initialise(vae: AnyVae) -> None:
    """Begin as a linear autoencoder (silent residual branches) with little noise, which learns several times faster."""
    for name, module in vae.named_modules():
        if isinstance(module, torch.nn.Conv2d | torch.nn.Conv3d):
            torch.nn.init.kaiming_normal_(module.weight, nonlinearity="linear")
            if module.bias is not None:
                torch.nn.init.zeros_(module.bias)
            if name.endswith(("conv2", "conv2.conv")):
                torch.nn.init.zeros_(module.weight)
    bias = _quant_conv(vae).bias
    assert isinstance(bias, Tensor)
    with torch.no_grad():
        bias[LATENT_CHANNELS:] = -6


def _quant_conv(vae: AnyVae) -> torch.nn.Module:
    """What makes a latent's mean and variance; a VAE of images may lack it, those trained here do not."""
    assert vae.quant_conv is not None
    return vae.quant_conv


def draw_batch(random: Random, stage: Stage) -> Tensor:
    """Windows `[B, C, F, H, W]` in -1..1 of new scenes, which move equally many pixels a frame at every size."""
    whole = max(stage.frames, stage.side // 4 + 1) if stage.frames > 1 else 1
    windows = []
    for scene in sample_scenes(stage.batch, random.getrandbits(32), held_out=False):
        video = draw(scene, random.getrandbits(32), num_frames=whole, height=stage.side, width=stage.side)
        first = random.randint(0, whole - stage.frames)
        windows.append(video[first : first + stage.frames])
    return torch.stack(windows).permute(0, 4, 1, 2, 3) * 2 - 1


def as_it_takes(vae: AnyVae, video: Tensor) -> Tensor:
    """A video `[B, C, F, H, W]`, or of one frame an image `[B, C, H, W]`, whichever it is made for."""
    return video[:, :, 0] if isinstance(vae, AutoencoderKL) else video


def reconstruct(vae: AnyVae, video: Tensor) -> tuple[Tensor, Tensor]:
    """Encode, sample and decode; return the reconstruction and the mean KL divergence of a latent value."""
    posterior = vae.encode(video, return_dict=False)[0]
    latents: Any = posterior.sample()  # AutoencoderKL asks for a FloatTensor, which no tensor is
    reconstruction = vae.decode(latents, return_dict=False)[0]
    mean, logvar = posterior.mean, posterior.logvar
    return reconstruction, 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
