"""A HunyuanVideo pipeline of other sizes than the demo model's, with random weights."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
)

from jobs.demo.hunyuan_video import TEXT_WIDTH, build_pipeline

WORDS = ["a", "cat", "walks", "on", "grass"]
SIZE = {"height": 32, "width": 48, "num_frames": 13}  # 4 x 2 x 3 = 24 tokens


def build_tiny_pipeline(**changes: Any) -> HunyuanVideoPipeline:
    """8 x 8 x 4 compression, 16 latent channels, 12 heads, guidance embedding; `changes` are of the transformer."""
    torch.manual_seed(0)
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=16, block_out_channels=(4, 4, 8, 8), layers_per_block=1, norm_num_groups=2
    )
    settings = {
        "num_attention_heads": 12,
        "attention_head_dim": 6,
        "num_layers": 1,
        "num_single_layers": 2,
        "num_refiner_layers": 1,
        "text_embed_dim": TEXT_WIDTH,
        "pooled_projection_dim": TEXT_WIDTH,
        "rope_axes_dim": (2, 2, 2),
    }
    return build_pipeline(WORDS, vae, HunyuanVideoTransformer3DModel(**{**settings, **changes}))


def save_tiny_pipeline(directory: Path) -> Path:
    build_tiny_pipeline().save_pretrained(directory)
    return directory
