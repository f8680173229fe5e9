"""Decoded frames as bytes, made where they were decoded: a quarter of what they are in float32 leaves the device.

Legend: f H' W' frames, height and width of a piece of a video.
"""

import numpy as np
import torch
from torch import Tensor


def to_bytes(piece: Tensor) -> Tensor:
    """Frames `[1, 3, f, H', W']` from -1 to 1 as bytes `[f, H', W', 3]` on the same device; NaN counts as 0.

    To the bit what diffusers' `postprocess_video` gives, times 255 and rounded.
    """
    levels = torch.nan_to_num(piece[0].float()).mul_(0.5).add_(0.5).clamp_(0, 1).mul_(255).round_()
    return levels.permute(1, 2, 3, 0).to(torch.uint8, memory_format=torch.contiguous_format)


def on_host(frames: Tensor) -> np.ndarray:
    """The same bytes in host memory; from a GPU into pinned memory, which torch keeps for the next piece."""
    if frames.is_cuda:
        frames = torch.empty(frames.shape, dtype=frames.dtype, pin_memory=True).copy_(frames)
    return frames.numpy()
