"""Latents of every method on the demo model, to the bit as they were before the code was divided into rooms.

`latents.json` holds what that version sampled: a hash of the latents where the same kernels run, and a few of their
values, which any machine comes near to.
"""

import hashlib
import json
from pathlib import Path

import pytest
import torch

from caching.recipe.recipe import RECIPES
from jobs.machine import device_name
from jobs.models.facts import read_facts
from jobs.options.shared import MethodOptions
from jobs.rank.load import load_pipeline
from jobs.rank.renderer import Renderer, Sampling
from jobs.request.recipes import resolve_method
from parallel.layout import Layout
from tests.parallel.gang import Gang

BEFORE = json.loads((Path(__file__).parent / "latents.json").read_text())
KERNELS = {"torch": torch.__version__, "cpu": torch.backends.cpu.get_cpu_capability(), "processor": device_name()}
SAME_KERNELS = {name: BEFORE[name] for name in KERNELS} == KERNELS
PROMPT = "a large red circle moving right on a plain background"
SIZES = {
    "small": {"height": 64, "width": 64, "num_frames": 17},
    "whole": {"height": 128, "width": 128, "num_frames": 41},
}
PLANS = ("auto-5", "auto-9", "auto-13")


def sample(group, size, names):
    """Final latents of each method, with its dense steps and the most that its cache has held."""
    torch.set_num_threads(1)  # sums are added up in another order by several
    facts = read_facts("demo")
    pipeline = load_pipeline("demo", dtype="float32", device="cpu")
    renderer = Renderer(pipeline, group, facts.defaults.prompt_template)
    prompt, sampled = renderer.encode(PROMPT), {}
    sampling = Sampling(seed=7, **SIZES[size], steps=50, guidance=facts.defaults.guidance)
    for name in names:
        engine = renderer.use(resolve_method(name, MethodOptions(), facts.plans))
        latents = renderer.denoise(prompt, sampling)
        sampled[name] = latents, engine.dense_steps, engine.peak_cache_bytes
    return sampled


def check(sampled, before):
    for name, (latents, dense_steps, peak_cache_bytes) in sampled.items():
        expected, values = before[name], latents.flatten()
        assert (dense_steps, peak_cache_bytes) == (expected["dense"], expected["peak"]), name
        places = torch.randint(len(values), (8,), generator=torch.Generator().manual_seed(1))
        assert values[places].tolist() == pytest.approx(expected["values"], rel=0.01, abs=0.02), name
        digest = hashlib.sha256(latents.contiguous().numpy().tobytes()).hexdigest()
        assert digest == expected["sha256"] or not SAME_KERNELS, name


def test_nothing_is_left_out():
    joint = {name for name, method in RECIPES.items() if not method.needs_cross_attention}
    for size in SIZES:
        assert set(BEFORE[f"{size} 1x1"]) >= {*PLANS} and set(BEFORE[f"{size} 1x1"]) - {*PLANS} <= joint
        assert set(BEFORE[f"{size} 1x1"]) - set(BEFORE[f"{size} 2x1"]) == {"chipmunk"}  # which works on one rank


@pytest.mark.parametrize("size", ["small", pytest.param("whole", marks=[pytest.mark.slow, pytest.mark.timeout(900)])])
def test_one_rank_samples_the_same_bits(size):
    threads = torch.get_num_threads()
    try:
        before = BEFORE[f"{size} 1x1"]
        check(sample(None, size, before), before)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("size", SIZES)
def test_two_ranks_sample_the_same_bits(size, tmp_path):
    before = BEFORE[f"{size} 2x1"]
    with Gang(Layout(ulysses=2), tmp_path) as gang:
        for sampled in gang.run(sample, size, list(before)):
            check(sampled, before)
