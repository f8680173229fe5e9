"""Training of the demo model's transformer: flow matching on the VAE's latents.

Legend: B batch, C latent channels, F H W latent frames, height and width, L text tokens, D text width.
"""

import copy
import time
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from diffusers import AutoencoderKLHunyuanVideo, HunyuanVideoPipeline, HunyuanVideoTransformer3DModel
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from jobs.demo.scenes import Scene, draw

TEMPLATE = {"template": "{}", "crop_start": 0}
SHIFT = 7.0  # of the scheduler that samples
EMA_DECAY = 0.998


@dataclass(frozen=True, kw_only=True)
class TextFeatures:
    """What the frozen text encoders say of each caption."""

    tokens: Tensor  # [captions, L, D]
    pooled: Tensor  # [captions, D]


@dataclass(frozen=True, kw_only=True)
class Course:
    """What the transformer is trained on, and for how long."""

    steps: int
    batch: int = 16
    """Whole videos in a step."""
    still_part: float = 0.8
    """In this first part of the steps, most see stills: single latent frames with captions that name no motion."""
    still_batch: int = 64
    videos_among_stills: float = 0.25
    """The part of those steps that sees whole videos nevertheless."""
    learning_rate: float = 2e-3
    seed: int = 0


@torch.no_grad()
def encode_videos(vae: AutoencoderKLHunyuanVideo, scenes: list[Scene], seed: int, device: torch.device) -> Tensor:
    """Draw and encode every scene: latents `[scenes, C, F, H, W]`, unscaled."""
    latents, started = [], time.monotonic()
    vae = copy.deepcopy(vae)
    nn.Module.to(vae, torch.bfloat16)  # diffusers wraps `to` such that type checkers take it for a function
    for index, scene in enumerate(scenes):
        video = draw(scene, seed + index).permute(3, 0, 1, 2)[None] * 2 - 1
        latents.append(vae.encode(video.to(device, torch.bfloat16), return_dict=False)[0].mean.cpu())
        if index % 200 == 0:
            print(f"encode {index}/{len(scenes)}  {time.monotonic() - started:.0f} s", flush=True)
    return torch.cat(latents)


@torch.no_grad()
def encode_captions(pipeline: HunyuanVideoPipeline, captions: list[str]) -> TextFeatures:
    """Encode captions once; all have the same number of words, so no padding is kept."""
    tokens, pooled = [], []
    for caption in captions:
        embeds, pooled_embeds, mask = pipeline.encode_prompt(caption, prompt_template=TEMPLATE)
        assert mask is not None
        tokens.append(embeds[:, : int(mask.sum())])
        pooled.append(pooled_embeds)
    return TextFeatures(tokens=torch.cat(tokens), pooled=torch.cat(pooled))


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Videos and what is said of them."""

    latents: Tensor
    """`[N, C, F, H, W]`, scaled to unit variance."""
    caption_of: Tensor
    """The index of each video's caption, `[N]`."""
    text: TextFeatures
    still_text: TextFeatures
    """What is said of a single frame of a video with that caption."""

    def videos(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Whole videos `[count, C, F, H, W]`, their text `[count, L, D]` and pooled text `[count, D]`."""
        index = torch.randint(len(self.latents), (count,), generator=generator)
        captions = self.caption_of[index]
        return self.latents[index].float(), self.text.tokens[captions], self.text.pooled[captions]

    def stills(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Single latent frames `[count, C, 1, H, W]` from anywhere in the videos, and their text."""
        index = torch.randint(len(self.latents), (count,), generator=generator)
        frame = torch.randint(self.latents.shape[2], (count,), generator=generator)
        captions = self.caption_of[index]
        stills = self.latents[index, :, frame].unsqueeze(2).float()
        return stills, self.still_text.tokens[captions], self.still_text.pooled[captions]


def train_transformer(
    transformer: HunyuanVideoTransformer3DModel, data: Dataset, course: Course
) -> tuple[HunyuanVideoTransformer3DModel, list[float]]:
    """Train by flow matching; shapes are learned mostly from stills, of which a second of training holds many.

    Returns the moving average of the weights and the loss of every step on whole videos.
    """
    device = next(transformer.parameters()).device
    generator = torch.Generator().manual_seed(course.seed)
    average, losses, started = copy.deepcopy(transformer).eval(), [], time.monotonic()
    optimizers = make_optimizers(transformer, course.learning_rate)
    schedules = [torch.optim.lr_scheduler.LambdaLR(optimizer, warm_and_cool(course.steps)) for optimizer in optimizers]
    # Without the pattern matcher the plain attention of stills stays plain.
    step_loss = torch.compile(flow_matching_loss, options={"pattern_matcher": False})
    for step in range(course.steps):
        stills = step < course.still_part * course.steps
        stills &= torch.rand((), generator=generator).item() >= course.videos_among_stills
        clean, *text = data.stills(course.still_batch, generator) if stills else data.videos(course.batch, generator)
        noise, sigma = torch.randn(clean.shape, generator=generator), sample_sigma(len(clean), generator)
        inputs = [tensor.to(device) for tensor in (clean, noise, sigma, *text)]
        with torch.autocast(device.type, torch.bfloat16), attention_of(stills, device):
            loss = step_loss(transformer, *inputs)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(transformer.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
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


def attention_of(stills: bool, device: torch.device):
    """Plain products for stills on a CPU: for so few tokens, backwards four times faster than fused attention."""
    return sdpa_kernel(SDPBackend.MATH) if stills and device.type == "cpu" else nullcontext()


def flow_matching_loss(
    transformer: HunyuanVideoTransformer3DModel,
    clean: Tensor,
    noise: Tensor,
    sigma: Tensor,
    tokens: Tensor,
    pooled: Tensor,
) -> Tensor:
    """Mean squared error of the predicted velocity `noise - clean` at `(1 - sigma) * clean + sigma * noise`."""
    weight = sigma.view(-1, 1, 1, 1, 1)
    velocity = transformer(
        hidden_states=(1 - weight) * clean + weight * noise,
        timestep=sigma * 1000,
        encoder_hidden_states=tokens,
        encoder_attention_mask=torch.ones(tokens.shape[:2], device=tokens.device),
        pooled_projections=pooled,
        return_dict=False,
    )[0]
    return F.mse_loss(velocity.float(), noise - clean)


def sample_sigma(batch: int, generator: torch.Generator) -> Tensor:
    """Noise levels: half of them spread as the sampler's steps are, half evenly."""
    even = torch.rand(batch, generator=generator)
    shifted = SHIFT * even / (1 + (SHIFT - 1) * even)
    return torch.where(torch.rand(batch, generator=generator) < 0.5, shifted, even)


def make_optimizers(transformer: HunyuanVideoTransformer3DModel, learning_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the blocks, AdamW for everything else."""
    matrices, others = [], []
    for name, parameter in transformer.named_parameters():
        hidden = "transformer_blocks." in name and parameter.ndim == 2 and ".norm" not in name
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
