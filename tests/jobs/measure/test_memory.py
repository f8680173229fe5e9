"""Peaks at full size: as predicted, and as they are on a GPU that is not there; and what is said of them."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from caching.engine import Engine
from caching.flops import groups_of
from caching.peak import Allocations, steps_that_fill
from caching.recipe.recipe import RECIPES, recipe
from jobs.measure.full_pipeline import full_size_planner
from jobs.measure.gpu.bench import TypicalClock
from jobs.models.full_size import FULL_SIZE
from jobs.rank.memory import GIB, Setting
from parallel.layout import Layout
from tests.caching.conftest import JOINT_RECIPES
from tests.fake_cuda import CUDA, MODE, Seen, on_fake_cuda

STEPS = 50
SIZE = {"height": 720, "width": 1280, "num_frames": 129}
GRID = (33, 45, 80)
H100 = 79.6 * GIB
# What the denoising loop may take beside 26 GB of weights, in GB.
BOUNDS = {"full": 15.5, "auto": 15.5, "delta-dit": 18.5}
# Chipmunk's pieces are of another size where there are no values.
OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in JOINT_RECIPES if name not in ("full", "chipmunk")]
MODEL: list[Any] = []


def see_peak(name: str) -> int:
    """The bytes that the loop holds beside the weights at its fullest moment, on the device."""
    if not MODEL:
        config = FULL_SIZE["hunyuanvideo"].config
        import diffusers

        MODEL.append(on_fake_cuda(getattr(diffusers, config["_class_name"]), torch.bfloat16))
    [model], method = MODEL, RECIPES[name]
    num_steps = method.schedule.num_steps(STEPS)
    dense = [step for step, is_dense in enumerate(method.dense_plan(STEPS)) if is_dense]
    weights = [*model.parameters(), *model.buffers()]
    with MODE, torch.no_grad(), Allocations("cuda", beside=weights) as allocations, Seen([256] + [1.0] * 1000):
        engine = Engine(model, method)
        engine.begin(GRID, [1 - step / num_steps for step in range(num_steps)], decide=TypicalClock)
        inputs = {key: each.bfloat16() for key, each in engine.adapter.example_inputs(256, CUDA).items()}
        patches = torch.empty(1, GRID[0] * GRID[1] * GRID[2], engine.adapter.patch_values, device=CUDA)
        for first, length in steps_that_fill(groups_of(dense, num_steps)):
            engine.skip_to(first)
            for _ in range(length):
                engine.forward(patches, return_dict=False, **inputs)
        engine.detach()
    return allocations.peak_bytes


@pytest.fixture(scope="module")
def planner():
    return full_size_planner("hunyuanvideo")


def setting(name: str, **changes: Any) -> Setting:
    asked = Setting(method=recipe(name), **SIZE, num_steps=STEPS, layout=Layout())
    return replace(asked, **changes)


@pytest.mark.parametrize("name", ["full", *OTHERS])
def test_a_predicted_peak_is_that_on_the_device_and_below_its_bound(fake_cuda, planner, name):
    seen = fake_cuda.run(see_peak, name)
    assert seen <= BOUNDS.get(name, float("inf")) * 1e9
    assert planner.need(setting(name)).loop == pytest.approx(seen, rel=0.1)


def test_what_does_not_fit_is_refused_with_the_cheapest_remedy_and_the_longest_video_that_does(planner):
    assert planner.refusal(setting("full"), H100, 1) is None
    refusal = planner.refusal(setting("full"), 50 * GIB, 1)
    assert refusal is not None and refusal.startswith("method full at 720x1280x129 needs ")
    assert "on a GPU of 50.0 GiB: --offload would fit; as it is, at 720x1280 at most " in refusal
    most = planner.most_frames(setting("full"), 50 * GIB)
    assert 1 < most < 129 and (most - 1) % 4 == 0
    assert planner.fits(setting("full", num_frames=most), 50 * GIB)


def test_where_nothing_helps_it_is_said(planner):
    assert planner.remedy(setting("full"), 20 * GIB, 1) is None
    assert planner.most_frames(setting("full"), 20 * GIB) == 0


def test_weights_in_8_bits_are_the_last_remedy(planner):
    remedies = [planner.remedy(setting("full"), gib * GIB, 1) for gib in (50, 45, 36)]
    assert remedies == ["--offload", "--offload", "--offload --weights fp8"]


@pytest.mark.slow
def test_a_method_whose_cache_does_not_fit_gives_way_to_one_that_does(planner):
    refusal = planner.refusal(setting("pab"), H100, 1)
    assert refusal is not None and "--method auto would fit" in refusal
