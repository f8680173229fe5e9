"""Fidelity and memory of a rendered video.

Legend: F frames, H height, W width, C = 3 colour channels.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

ALEXNET = "alexnet-owt-7be5be79.pth"  # as torchvision calls it in its cache
IDENTICAL_DB = 100.0  # reported for videos without any difference, where the ratio is infinite


def psnr_db(video: np.ndarray, reference: np.ndarray) -> float:
    """Peak signal-to-noise ratio of two videos `[F, H, W, C]` of bytes, in decibels."""
    if np.array_equal(video, reference):
        return IDENTICAL_DB
    return float(peak_signal_noise_ratio(_unit(video), _unit(reference), data_range=1.0))


def ssim(video: np.ndarray, reference: np.ndarray) -> float:
    """Structural similarity of two videos `[F, H, W, C]` of bytes, averaged over every second frame."""
    similarity = structural_similarity_index_measure(_unit(video[::2]), _unit(reference[::2]), data_range=1.0)
    assert isinstance(similarity, torch.Tensor)
    return float(similarity)


def lpips(video: np.ndarray, reference: np.ndarray) -> float | None:
    """Perceptual distance (LPIPS, AlexNet) of two videos `[F, H, W, C]` of bytes, averaged over every second frame.

    None where torchvision or AlexNet's weights are not on disk: nothing is downloaded.
    """
    network = _lpips_network()
    if network is None:
        return None
    with torch.inference_mode():
        return float(network(_unit(video[::2]), _unit(reference[::2])))


@cache
def _lpips_network() -> Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None:
    if not (Path(torch.hub.get_dir()) / "checkpoints" / ALEXNET).is_file():
        return None
    try:
        import torchvision  # noqa: F401  # type: ignore[import-not-found]
    except (ImportError, RuntimeError):  # RuntimeError: built for another torch
        return None
    from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity

    return LearnedPerceptualImagePatchSimilarity(net_type="alex", normalize=True)


@dataclass
class Peak:
    """The largest memory of a block of code: of the GPU where there is one, else of the process."""

    bytes: int = 0


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Measure the peak memory of the block."""
    peak, on_gpu = Peak(), torch.cuda.is_available()
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM (man 5 proc)
    yield peak
    peak.bytes = torch.cuda.max_memory_allocated() if on_gpu else _high_water_mark()


def _high_water_mark() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024


def _unit(video: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(video).permute(0, 3, 1, 2).float() / 255
