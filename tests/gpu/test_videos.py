"""Videos of the demo model on a real GPU."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from caching.engine import Engine
from caching.recipe.recipe import RECIPES
from caching.recipe.schedule import Interval
from jobs.models.facts import read_facts
from jobs.rank.load import load_pipeline
from jobs.rank.renderer import Renderer, Sampling
from tests.caching.conftest import GRID, make_transformer
from tests.caching.test_snapshot import TIMES, stored_and_read

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(280)]

PROMPT = "a large red circle moving right on a plain background"
SAMPLING = Sampling(seed=7, height=128, width=128, num_frames=41, steps=50, guidance=6.0)
FACTS = read_facts("demo")


def video(dtype: str, *, offload: bool = False, fp8: bool = False) -> np.ndarray:
    """Frames `[F, H, W, 3]` as bytes."""
    pipeline = load_pipeline("demo", dtype=dtype, device="cuda:0", offload=offload, fp8=fp8)
    renderer = Renderer(pipeline, template=FACTS.defaults.prompt_template)
    renderer.use(RECIPES["resca"])
    frames = renderer.decode(renderer.denoise(renderer.encode(PROMPT), SAMPLING))
    if offload:
        waiting = [each for model in (pipeline.vae, pipeline.text_encoder) for each in model.parameters()]
        assert {each.device.type for each in waiting} == {"cpu"}
    return frames


def psnr(frames: np.ndarray, others: np.ndarray) -> float:
    error = np.mean((frames.astype(np.float64) - others.astype(np.float64)) ** 2)
    return float("inf") if error == 0 else 10 * np.log10(255**2 / error)


def test_an_offloaded_video_is_the_same():
    assert psnr(video("float32", offload=True), video("float32")) > 60


def test_a_video_in_bfloat16_is_near_to_that_in_float32():
    assert psnr(video("bfloat16"), video("float32")) > 40


@pytest.mark.parametrize("offload", [False, True])
def test_a_video_of_weights_in_8_bits_is_like_that_of_whole_ones(offload):
    assert 30 < psnr(video("bfloat16", offload=offload, fp8=True), video("bfloat16")) < 60


@pytest.mark.parametrize("name", ["auto", "resca", "taylorseer", "toca", "teacache"])
def test_a_generation_goes_on_from_its_state(device, name, sample, inputs):
    """By way of bytes in host memory, in the middle of the loop."""
    method = replace(RECIPES[name], schedule=Interval(every=3))
    engines = [Engine(make_transformer().to(device), method) for _ in range(2)]
    given = {key: value.to(device) for key, value in inputs.items()}
    velocities: list[list[torch.Tensor]] = [[], []]
    patches = engines[0].adapter.unfold(sample.to(device))
    for engine in engines:
        engine.begin(GRID, TIMES)
    with torch.inference_mode():
        for step in range(len(TIMES)):
            velocities[0].append(engines[0].forward(patches, **given).sample)
            if step == 4:
                snapshot = engines[0].snapshot(patches)
                in_host_memory = replace(snapshot, tensors={key: each.cpu() for key, each in snapshot.tensors.items()})
                patches, _ = engines[1].restore(stored_and_read(in_host_memory))
            if step > 4:
                velocities[1].append(engines[1].forward(patches, **given).sample)
    for again, velocity in zip(velocities[1], velocities[0][5:], strict=True):
        assert torch.equal(again, velocity)
