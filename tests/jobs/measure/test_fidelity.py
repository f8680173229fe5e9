"""Fidelity of rendered videos."""

import sys

import numpy as np
import pytest

from jobs.measure import fidelity as measure
from jobs.measure.fidelity import IDENTICAL_DB, lpips, psnr_db, ssim


@pytest.fixture
def video():
    return np.random.default_rng(0).integers(0, 255, (5, 16, 16, 3), dtype=np.uint8)


def test_identical_videos(video):
    assert (psnr_db(video, video), ssim(video, video)) == (IDENTICAL_DB, pytest.approx(1.0))


def test_psnr_of_a_known_error(video):
    darker = np.clip(video, 10, None) - 10
    brighter = darker + 10
    assert psnr_db(darker.astype(np.uint8), brighter.astype(np.uint8)) == pytest.approx(
        20 * np.log10(255 / 10), abs=1e-3
    )


def test_ssim_falls_with_the_error(video):
    noise = np.random.default_rng(1).normal(size=video.shape)
    scores = [ssim(np.clip(video + scale * noise, 0, 255).astype(np.uint8), video) for scale in (2, 20, 60)]
    assert scores[0] > scores[1] > scores[2]


@pytest.mark.parametrize("weights", [False, True])
def test_lpips_is_left_out_where_it_cannot_be_computed(video, tmp_path, monkeypatch, weights):
    """No weights on disk, or no torchvision to run them with."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setitem(sys.modules, "torchvision", None)
    if weights:
        (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
        (tmp_path / "hub" / "checkpoints" / measure.ALEXNET).touch()
    measure._lpips_network.cache_clear()
    assert lpips(video, video) is None
    measure._lpips_network.cache_clear()
