"""FLOPs counted by running recipes on the meta device."""

from dataclasses import replace

import pytest
from torch.utils.flop_counter import FlopCounterMode

from caching.flops import (
    Cost,
    MetaLoop,
    count,
    count_flops,
    count_full_flops,
    flops_by_groups,
    flops_of_prompt,
    run_on_meta,
)
from caching.meta_counter import MetaCounter
from caching.recipe.recipe import RECIPES, Recipe, recipe
from caching.recipe.schedule import Interval, Places
from tests.caching.conftest import SMALL_RECIPES

HUNYUAN_VIDEO = {"_class_name": "HunyuanVideoTransformer3DModel"}  # the defaults of its class are the full size
GRID = (17, 30, 40)  # 480 x 640, 65 frames
TFLOP = 1e12


@pytest.fixture(scope="module")
def full_step():
    return count_full_flops(HUNYUAN_VIDEO, grid=GRID, num_text_tokens=256, num_steps=1)


def test_full_sampling_of_hunyuan_video_is_the_papers_figure(full_step):
    assert 50 * full_step == pytest.approx(29_773.0 * TFLOP, rel=1e-3)


def test_resca_costs_what_the_paper_says(full_step):
    """5,383.2 TFLOPs with N=6, O=1, K=32; a sparse step with proxies is counted, the others are alike."""
    method = replace(RECIPES["resca"], schedule=Places(dense=(0, 1)))
    flops = count_flops(HUNYUAN_VIDEO, method, grid=GRID, num_text_tokens=256, num_steps=3)
    sparse = flops - 2 * full_step
    assert 9 * full_step + 36 * sparse == pytest.approx(5_383.2 * TFLOP, rel=0.01)
    assert 36 * sparse > 0.5 * (5_383.2 * TFLOP - 9 * full_step)


def test_methods_without_proxies_spend_nothing_in_sparse_steps():
    method, size = recipe("taylorseer", feature="output"), {"grid": GRID, "num_text_tokens": 256}
    assert count_flops(SMALL, method, **size, num_steps=6) == count_full_flops(SMALL, **size, num_steps=1)


def test_fewer_steps_cost_what_dense_steps_cost():
    size = {"grid": GRID, "num_text_tokens": 256}
    full_step = count_full_flops(SMALL, **size, num_steps=1)
    assert count_flops(SMALL, recipe("steps", interval=25), **size, num_steps=50) == 2 * full_step


QUICK = ("full", "delta-dit")
OTHERS = [name for name, method in RECIPES.items() if not method.needs_cross_attention and name not in QUICK]


ALL = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
SLOWER = [name for name in (*QUICK, *OTHERS) if name not in ("auto", "resca")]
SMALL = {**HUNYUAN_VIDEO, "num_attention_heads": 2, "attention_head_dim": 12, "rope_axes_dim": (4, 4, 4)}
SMALL |= {"num_layers": 1, "num_single_layers": 2, "num_refiner_layers": 1}


def cost_of_all_steps(method: Recipe, **size) -> Cost:
    """What a loop costs of which every step is run."""
    with MetaCounter({}) as counter:
        engine = run_on_meta(SMALL, method, **size)
    return Cost(
        flops=float(counter.flops),
        cache_bytes=engine.peak_cache_bytes,
        dense_steps=engine.dense_steps,
        sparse_steps=engine.sparse_steps,
    )


@pytest.mark.parametrize("name", ["auto", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOWER)])
def test_operations_are_counted_as_torch_does(name):
    size, method = {"grid": (4, 6, 8), "num_text_tokens": 40, "num_steps": 8}, SMALL_RECIPES[name]
    with FlopCounterMode(display=False) as theirs:
        run_on_meta(SMALL, method, **size)
    with MetaCounter({}) as ours:
        run_on_meta(SMALL, method, **size)
    assert ours.flops == theirs.get_total_flops() > 0


@pytest.mark.parametrize("name", ALL)
def test_the_cost_of_any_prompt_follows_from_three_lengths_and_from_groups_that_repeat(name):
    size, method = {"grid": (4, 6, 8), "num_steps": 11}, SMALL_RECIPES[name]
    if isinstance(method.schedule, Interval):
        method = replace(method, schedule=Interval(every=3))  # three groups of a length, and a rest
    for length in (7, 40, 300):
        flops_of_prompt(SMALL, method, num_text_tokens=length, **size)
    for length in (7, 90):
        counted = cost_of_all_steps(method, num_text_tokens=length, **size).flops
        rounded = 0.05 if name == "chipmunk" else 1e-9  # it computes a part of all tokens, text among them
        assert flops_of_prompt(SMALL, method, num_text_tokens=length, **size) == pytest.approx(counted, rel=rounded)


@pytest.mark.parametrize("name", ["auto", "resca", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOWER)])
def test_the_cost_is_that_of_all_steps_and_its_cache_the_most_that_any_of_them_keeps(name):
    size = {"grid": (4, 6, 8), "num_text_tokens": 40, "num_steps": 14}
    method = SMALL_RECIPES[name]
    if isinstance(method.schedule, Interval) and method.schedule.every > 2:
        method = replace(method, schedule=replace(method.schedule, every=3))
    assert count(SMALL, method, **size) == cost_of_all_steps(method, **size)


def test_passes_add_up():
    size = {"grid": (4, 6, 8), "num_steps": 8}
    method = recipe("auto", interval=3)
    both = count(SMALL, method, num_text_tokens=(40, 7), **size)
    alone = [count(SMALL, method, num_text_tokens=length, **size) for length in (40, 7)]
    assert both.flops == sum(each.flops for each in alone)
    assert both.cache_bytes == sum(each.cache_bytes for each in alone)
    assert both.dense_steps == alone[0].dense_steps


@pytest.mark.parametrize("name", ["resca", *(pytest.param(name, marks=pytest.mark.slow) for name in ("full", "auto"))])
def test_a_model_that_takes_over_begins_with_a_dense_step_and_without_proxies(name):
    size = {"grid": (4, 6, 8), "num_text_tokens": 40, "num_steps": 12}
    method = RECIPES["full"] if name == "full" else replace(SMALL_RECIPES[name], schedule=Interval(every=3))
    one, two = (count(SMALL, method, **size, changes=changes) for changes in ((), (5,)))
    assert two == cost_of_all_steps(method, **size, changes=(5,))
    if name == "full":
        assert two == one
    else:
        assert (two.dense_steps, two.sparse_steps) == (one.dense_steps + 1, one.sparse_steps - 1)


@pytest.mark.parametrize(("name", "most"), [("full", 2), ("steps", 2), ("auto", 20), ("resca", 38)])
def test_steps_that_repeat_are_run_no_more(name, most):
    loop = MetaLoop(SMALL, SMALL_RECIPES[name], grid=(4, 6, 8), num_text_tokens=40, num_steps=50)
    flops_by_groups(loop, until_cache_is_full=True)
    assert len(loop.engine.dense) <= most
