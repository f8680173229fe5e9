"""Passes of proxies are counted from the recipe alone."""

from collections import Counter
from contextlib import nullcontext

import diffusers
import pytest
import torch

from caching.engine import Engine
from caching.flops import count_full_flops
from caching.recipe.recipe import RECIPES, Recipe, recipe
from caching.recipe.schedule import Places
from jobs.models.family import Configs
from jobs.models.hunyuan_video import HunyuanVideo
from jobs.request.passes import count_passes, most_ranks_beside_proxies, seconds_of_a_proxy_pass

HUNYUAN_VIDEO = HunyuanVideo().numbers(Configs())
SMALL = {"num_attention_heads": 2, "attention_head_dim": 12, "rope_axes_dim": (4, 4, 4)}
SMALL |= {"num_layers": 1, "num_single_layers": 1, "num_refiner_layers": 1}


@pytest.mark.parametrize(("name", "steps"), [("resca", 50), ("resca", 7), ("auto", 50), ("steps", 50)])
def test_they_are_those_of_a_generation(name, steps):
    method, parts = recipe(name, clusters=8) if name == "resca" else RECIPES[name], Counter()

    def note(part: str):
        parts[part] += 1
        return nullcontext()

    meta, steps_run = torch.device("meta"), method.schedule.num_steps(steps)
    with meta:
        transformer = diffusers.HunyuanVideoTransformer3DModel(**SMALL)
    engine = Engine(transformer, method, timed=note)
    engine.begin((2, 4, 8), [1 - step / steps_run for step in range(steps_run)])
    inputs = engine.adapter.example_inputs(5, meta)
    with torch.no_grad():
        for _ in range(steps_run):
            engine.forward(torch.empty(1, 64, engine.adapter.patch_values, device=meta), **inputs)
    dense, proxies = parts["dense"], parts["proxies"]
    assert count_passes(method, steps) == (dense, steps_run - dense, proxies)


@pytest.mark.parametrize("name", ["toca", "duca"])
def test_other_methods_compute_some_tokens_in_every_sparse_step(name):
    passes = count_passes(RECIPES[name], 50)
    assert passes.some_tokens == passes.sparse == 50 - passes.dense


def test_what_a_dense_step_takes_is_about_what_is_counted():
    counted = count_full_flops(
        {"_class_name": "HunyuanVideoTransformer3DModel"}, grid=(17, 30, 40), num_text_tokens=256, num_steps=1
    )
    assert HUNYUAN_VIDEO.step_flops(17 * 30 * 40 + 256) == pytest.approx(counted, rel=0.02)


def test_a_pass_takes_as_long_as_the_launches_of_all_blocks():
    assert seconds_of_a_proxy_pass(HUNYUAN_VIDEO) == pytest.approx(0.04)
    assert most_ranks_beside_proxies(RECIPES["full"], HUNYUAN_VIDEO, 100) == float("inf")
    tuned = Recipe(name="tuned", schedule=Places(dense=(0, 4), steps=12))
    assert most_ranks_beside_proxies(tuned, HUNYUAN_VIDEO, 100) == float("inf")
    few, many = (most_ranks_beside_proxies(RECIPES["resca"], HUNYUAN_VIDEO, tokens) for tokens in (2048, 118_800))
    assert few < 1 and many > 100
