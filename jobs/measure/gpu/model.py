"""The transformer with random weights, made where it is used, and random inputs for it.

Legend: C latent channels, F H W latent frames, height and width, L text tokens.
"""

from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, HunyuanVideoTransformer3DModel
from torch import Tensor, nn

from caching.models import adapter_for
from caching.models.state import Grid
from jobs.errors import BadInput
from jobs.measure.full_size import DTYPE
from jobs.models.full_size import FULL_SIZE, Config
from jobs.models.full_size import Size as ModelSize

SMALL = ModelSize(
    config={
        "_class_name": "HunyuanVideoTransformer3DModel",
        "num_attention_heads": 4,
        "attention_head_dim": 32,
        "num_layers": 1,
        "num_single_layers": 2,
        "num_refiner_layers": 1,
        "text_embed_dim": 64,
        "pooled_projection_dim": 64,
        "rope_axes_dim": (8, 12, 12),
    },
    side=16,
    temporal=4,
    num_text_tokens=16,
    height=64,
    width=96,
    num_frames=13,
)
BENCHMARKED = {"hunyuanvideo": FULL_SIZE["hunyuanvideo"], "small": SMALL}
SIZES = {"hunyuanvideo": "480x640x65,720x1280x129", "small": "64x96x13,64x64x13"}
INIT_STD = 0.02
SHIFT = 7.0  # of HunyuanVideo's noise levels
GUIDANCE = 6.0


@dataclass(frozen=True, kw_only=True)
class Video:
    """A size in pixels and frames, and its tokens along (frames, height, width)."""

    height: int
    width: int
    num_frames: int
    grid: Grid

    @property
    def name(self) -> str:
        return f"{self.height}x{self.width}x{self.num_frames}"

    @property
    def num_tokens(self) -> int:
        return prod(self.grid)


def read_video(text: str, model: ModelSize) -> Video:
    """A size written HEIGHTxWIDTHxFRAMES. Raises BadInput for one that cannot be read or does not divide."""
    try:
        height, width, num_frames = (int(number) for number in text.split("x"))
    except ValueError as error:
        raise BadInput(f"--sizes takes HEIGHTxWIDTHxFRAMES, such as 480x640x65, not {text}") from error
    if min(height, width, num_frames) < 1:
        raise BadInput(f"--sizes takes positive numbers, not {text}")
    grid = model.grid(height, width, num_frames)
    return Video(height=height, width=width, num_frames=num_frames, grid=grid)


def random_transformer(config: Config, device: torch.device) -> HunyuanVideoTransformer3DModel:
    """The model in bfloat16 with normal weights; no other copy of them is ever made."""
    with torch.device("meta"):
        transformer = HunyuanVideoTransformer3DModel.from_config(config)
    assert isinstance(transformer, HunyuanVideoTransformer3DModel)
    transformer.eval().requires_grad_(False)
    assert not list(transformer.buffers()), "buffers would stay without values"
    nn.Module.to(transformer, DTYPE)  # the model's own `to` warns of what does not matter without values
    transformer.to_empty(device=device)
    for name, parameter in transformer.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(std=INIT_STD)
        else:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    return transformer


def random_inputs(transformer: nn.Module, num_text_tokens: int, device: torch.device) -> dict[str, Tensor]:
    """A random prompt: what the transformer's forward takes beside latents and timestep."""
    inputs = dict(adapter_for(transformer).example_inputs(num_text_tokens, device))
    for name in ("encoder_hidden_states", "pooled_projections"):
        inputs[name].normal_()
    inputs["guidance"].fill_(1000 * GUIDANCE)
    del inputs["timestep"]
    return {name: value.to(DTYPE) for name, value in inputs.items()}


def make_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """HunyuanVideo's own."""
    return FlowMatchEulerDiscreteScheduler(shift=SHIFT)


def noise_levels(num_steps: int) -> list[float]:
    """The sigma of each step, and 0 after the last."""
    scheduler = make_scheduler()
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 0.0, num_steps + 1)[:-1].tolist())
    return torch.as_tensor(scheduler.sigmas).tolist()


def random_latents(transformer: HunyuanVideoTransformer3DModel, video: Video, device: torch.device) -> Tensor:
    """Noise `[1, C, F, H, W]` in float32."""
    config = transformer.config
    patch = (config["patch_size_t"], config["patch_size"], config["patch_size"])
    size = [tokens * length for tokens, length in zip(video.grid, patch, strict=True)]
    return torch.randn(1, config["in_channels"], *size, device=device)
