"""Decoded frames become bytes where they were decoded, and the same bytes as by diffusers and NumPy in host memory."""

import numpy as np
import pytest
import torch
from diffusers.video_processor import VideoProcessor

from jobs.rank.pixels import on_host, to_bytes
from jobs.rank.renderer import Renderer
from jobs.store.mp4 import write_video
from tests.jobs.tiny_model import build_tiny_pipeline


def by_diffusers(piece: torch.Tensor) -> np.ndarray:
    video = VideoProcessor().postprocess_video(torch.nan_to_num(piece.float()), output_type="np")[0]
    return (video * 255).round().astype(np.uint8)


def piece_of(values: torch.Tensor) -> torch.Tensor:
    """A piece `[1, 3, f, 4, 5]` of values, in order."""
    return values[: len(values) // 60 * 60].reshape(1, 3, -1, 4, 5)


def levels() -> torch.Tensor:
    """Every level, what lies half-way between two, what is next to that, and what is out of range."""
    halves = torch.arange(-4, 516, dtype=torch.float64) / 510 * 2 - 1
    next_to = [torch.nextafter(halves.float(), torch.tensor(side)) for side in (-2.0, 2.0)]
    odd = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e30, -0.0, 1.0, -1.0])
    return torch.cat([halves.float(), *next_to, odd, torch.rand(10_000) * 3 - 1.5])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d], ids=str)
def test_bytes_are_those_of_diffusers_and_numpy(dtype, memory_format):
    piece = piece_of(levels().to(dtype)).contiguous(memory_format=memory_format)
    before, frames = piece.clone(), on_host(to_bytes(piece))
    assert frames.dtype == np.uint8 and frames.flags.c_contiguous
    assert np.array_equal(frames, by_diffusers(piece))
    assert torch.equal(piece.nan_to_num(), before.nan_to_num())


def test_only_bytes_leave_the_device():
    """On the meta device whatever reads a value raises."""
    frames = to_bytes(torch.empty(1, 3, 13, 720, 1280, dtype=torch.bfloat16, device="meta"))
    assert (frames.device.type, frames.dtype, frames.shape) == ("meta", torch.uint8, (13, 720, 1280, 3))
    assert frames.is_contiguous()


@torch.no_grad()
def test_a_renderer_writes_the_same_mp4(tmp_path):
    pipeline, latents = build_tiny_pipeline(), torch.randn(1, 16, 4, 4, 6)
    decoded = pipeline.vae.decode(latents / pipeline.vae.config.scaling_factor).sample
    expected = write_video(by_diffusers(decoded), tmp_path / "diffusers.mp4", fps=8)
    assert write_video(Renderer(pipeline).frames(latents), tmp_path / "renderer.mp4", fps=8) == expected
