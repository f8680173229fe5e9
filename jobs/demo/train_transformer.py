"""Training of a demo model's transformer on the VAE's latents.

Legend: C latent channels, F H W latent frames, height and width.
"""

import copy
import time
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers import ModelMixin
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from jobs.demo.scenes import Scene, draw
from jobs.demo.train_vae import as_it_takes
from jobs.demo.trainee import AnyVae, Design, Trainee, Transformer

EMA_DECAY = 0.998
BLOCKS = ("blocks.", "transformer_blocks.", "single_transformer_blocks.")
Text = tuple[Tensor, ...]  # what the frozen text encoders say of each caption, the first dimension


@dataclass(frozen=True, kw_only=True)
class Course:
    """What the transformer is trained on, and for how long."""

    steps: int
    batch: int = 16
    """Whole videos, or images, in a step."""
    still_part: float = 0.8
    """In this first part of the steps, most see stills: single latent frames with captions that name no motion."""
    still_batch: int = 64
    videos_among_stills: float = 0.25
    """The part of those steps that sees whole videos nevertheless."""
    learning_rate: float = 2e-3
    seed: int = 0


def working_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where a device computes in it; a CPU that only emulates it takes 4 to 30 times as long as in float32."""
    if device.type != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return torch.bfloat16
    return torch.float32


class NoBfloat16(TorchFunctionMode):
    """What is asked for in bfloat16 keeps its format; Muon asks for it whatever the device computes in."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        return args[0].clone() if func is Tensor.bfloat16 else func(*args, **(kwargs or {}))


@torch.no_grad()
def encode_videos(
    vae: AnyVae, scenes: list[Scene], seed: int, *, design: Design, panning: bool, device: torch.device
) -> Tensor:
    """Draw and encode every scene: latents `[scenes, C, F, H, W]`, unscaled."""
    latents, started, dtype = [], time.monotonic(), working_dtype(device)
    vae = copy.deepcopy(vae)
    nn.Module.to(vae, dtype)  # diffusers wraps `to` such that type checkers take it for a function
    for index, scene in enumerate(scenes):
        video = draw(scene, seed + index, **design.size, panning=panning).permute(3, 0, 1, 2)[None] * 2 - 1
        given = as_it_takes(vae, video.to(device, dtype))
        mean = vae.encode(given, return_dict=False)[0].mean.cpu()
        latents.append(mean.view(*mean.shape[:2], -1, *mean.shape[-2:]))
        if index % 200 == 0:
            print(f"encode {index}/{len(scenes)}  {time.monotonic() - started:.0f} s", flush=True)
    return torch.cat(latents)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Videos and what is said of them."""

    latents: Tensor
    """`[N, C, F, H, W]`, scaled to unit variance."""
    caption_of: Tensor
    """The index of each video's caption, `[N]`."""
    text: Text
    still_text: Text
    """What is said of a single frame of a video with that caption."""
    no_text: Text = ()
    """Of an empty caption, each with a first dimension of 1."""
    caption_drop: float = 0.0
    """The part that sees it."""

    def videos(self, count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Whole videos `[count, C, F, H, W]`, and their text."""
        index = torch.randint(len(self.latents), (count,), generator=generator)
        return self.latents[index].float(), *self._said(self.text, index, generator)

    def stills(self, count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Single latent frames `[count, C, 1, H, W]` from anywhere in the videos, and their text."""
        index = torch.randint(len(self.latents), (count,), generator=generator)
        frame = torch.randint(self.latents.shape[2], (count,), generator=generator)
        stills = self.latents[index, :, frame].unsqueeze(2).float()
        return stills, *self._said(self.still_text, index, generator)

    def _said(self, text: Text, index: Tensor, generator: torch.Generator) -> Text:
        said = tuple(each[self.caption_of[index]] for each in text)
        if not self.no_text:
            return said
        dropped = torch.rand(len(index), generator=generator) < self.caption_drop
        for each, nothing in zip(said, self.no_text, strict=True):
            each[dropped] = nothing
        return said


def train_transformer(
    trainee: Trainee[Any, Transformer, Any], transformer: Transformer, data: Dataset, course: Course
) -> tuple[Transformer, list[float]]:
    """Train on levels of noise; shapes are learned mostly from stills, of which a second of training holds many.

    Returns the moving average of the weights and the loss of every step on whole videos.
    """
    device = next(transformer.parameters()).device
    generator = torch.Generator().manual_seed(course.seed)
    average, losses, started = copy.deepcopy(transformer).eval(), [], time.monotonic()
    optimizers = make_optimizers(transformer, course.learning_rate)
    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, warm_and_cool(course.steps)) for optimizer in optimizers]
    dtype = working_dtype(device)
    autocast = torch.autocast(device.type, dtype, enabled=dtype != torch.float32)
    muons = nullcontext() if dtype == torch.bfloat16 else NoBfloat16()
    # Without the pattern matcher the plain attention of stills stays plain.
    step_loss = torch.compile(partial(trainee.loss, transformer), options={"pattern_matcher": False})
    for step in range(course.steps):
        stills = step < course.still_part * course.steps
        stills &= torch.rand((), generator=generator).item() >= course.videos_among_stills
        clean, *text = data.stills(course.still_batch, generator) if stills else data.videos(course.batch, generator)
        noise, sigma = (
            torch.randn(clean.shape, generator=generator),
            sample_sigma(len(clean), trainee.design.shift, generator),
        )
        inputs = [tensor.to(device) for tensor in (clean, noise, sigma, *text)]
        with autocast, attention_of(clean, device):
            loss = step_loss(*inputs)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(transformer.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            with muons:
                optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        update_average(average, transformer, min(EMA_DECAY, (step + 1) / (step + 20)))
        if not stills:
            losses.append(loss.item())
        if step % 50 == 0:
            recent = sum(losses[-50:]) / max(1, len(losses[-50:]))
            print(
                f"transformer {step}/{course.steps}  loss {recent:.4f}  {time.monotonic() - started:.0f} s", flush=True
            )
    return average, losses


def attention_of(latents: Tensor, device: torch.device):
    """Plain products for single frames on a CPU: for so few tokens, backwards four times as fast as fused attention."""
    return sdpa_kernel(SDPBackend.MATH) if latents.shape[2] == 1 and device.type == "cpu" else nullcontext()


def sample_sigma(batch: int, shift: float, generator: torch.Generator) -> Tensor:
    """Noise levels: half of them spread as the sampler's steps are, half evenly."""
    even = torch.rand(batch, generator=generator)
    shifted = shift * even / (1 + (shift - 1) * even)
    return torch.where(torch.rand(batch, generator=generator) < 0.5, shifted, even)


def make_optimizers(transformer: ModelMixin, learning_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for everything else."""
    matrices, others = [], []
    for name, parameter in transformer.named_parameters():
        hidden = name.startswith(BLOCKS) and parameter.ndim == 2 and ".norm" not in name
        (matrices if hidden else others).append(parameter)
    return [
        torch.optim.Muon(matrices, lr=learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=learning_rate / 3, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def warm_and_cool(steps: int):
    """A learning rate that warms up, stays, and falls linearly in the last 40% of the steps."""
    return lambda step: min(1.0, (step + 1) / 50, max(0.02, (steps - step) / (0.4 * steps)))


@torch.no_grad()
def update_average(average: torch.nn.Module, model: torch.nn.Module, decay: float) -> None:
    for mean, value in zip(average.parameters(), model.parameters(), strict=True):
        mean.lerp_(value, 1 - decay)
