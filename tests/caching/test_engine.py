import gc
from dataclasses import replace
from functools import partial
from typing import get_args

import pytest
import torch
from torch.testing import assert_close

from caching.engine import Engine
from caching.recipe.recipe import RECIPES, Feature, ProxyTaylor, Recipe, recipe
from caching.recipe.schedule import Interval, Places
from caching.recipe.tokens import TrajectoryMedoids
from tests.caching.conftest import GRID, JOINT_RECIPES, SMALL_RECIPES

TIMES = [0.9, 0.7, 0.55, 0.4, 0.3, 0.2, 0.1]
SECOND = Places(dense=(0, 1))  # proxies begin after the second dense step
NUM_TOKENS = GRID[0] * GRID[1] * GRID[2]
FEATURES = set(get_args(Feature)) - {"cross_attention", "mean_cross_attention"}  # which HunyuanVideo does not have


def run(engine, sample, inputs, times=TIMES):
    """Denoise with plain Euler steps; return the velocity of every step."""
    engine.begin(GRID, times)
    velocities = []
    with torch.no_grad():
        for time, following in zip(times, [*times[1:], 0.0], strict=True):
            velocity = engine.forward(sample, **{**inputs, "timestep": torch.tensor([1000 * time])}).sample
            sample = sample + (following - time) * velocity
            velocities.append(velocity)
    return velocities


def with_interval(name, every):
    """A recipe with a dense step in `every`."""
    return replace(SMALL_RECIPES[name], schedule=Interval(every=every))


def test_a_dense_step_equals_the_model_without_padding(transformer, sample, inputs):
    with torch.no_grad():
        expected = transformer(sample, **inputs).sample
        engine = Engine(transformer, recipe("full"))
        engine.begin(GRID, [0.7])
        assert_close(transformer(sample, **inputs).sample, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", JOINT_RECIPES)
def test_detach_restores_the_model_exactly(transformer, sample, inputs, name):
    with torch.no_grad():
        expected = transformer(sample, **inputs).sample
        engine = Engine(transformer, with_interval(name, 3))
        run(engine, sample, inputs)
        engine.detach()
        engine.detach()
        assert "forward" not in vars(transformer)
        assert torch.equal(transformer(sample, **inputs).sample, expected)


def test_every_method_with_interval_1_is_full_sampling(transformer, sample, inputs):
    engine = Engine(transformer, recipe("full"))
    expected = run(engine, sample, inputs)
    engine.detach()
    for name in set(JOINT_RECIPES) - {"full"}:
        engine = Engine(transformer, with_interval(name, 1))
        assert all(map(torch.equal, run(engine, sample, inputs), expected))
        engine.detach()


@pytest.mark.parametrize("name", JOINT_RECIPES)
def test_the_answer_is_float32_whatever_the_model_is(transformer, sample, inputs, name):
    half = {name: value.bfloat16() for name, value in inputs.items()}
    engine = Engine(transformer.bfloat16(), with_interval(name, 3))
    velocities = run(engine, sample.bfloat16(), half)
    assert {velocity.dtype for velocity in velocities} == {torch.float32}
    assert engine.sparse_steps or name == "full"


@pytest.mark.parametrize("feature", sorted(FEATURES))
def test_reuse_at_one_noise_level_repeats_the_dense_step(transformer, sample, inputs, feature):
    """Whatever is cached, an unchanged input must find it."""
    engine = Engine(transformer, recipe("fora", interval=3, feature=feature))
    engine.begin(GRID, [0.7, 0.7, 0.7])
    with torch.no_grad():
        dense, *sparse = (engine.forward(sample, **inputs).sample for _ in range(3))
    for velocity in sparse:
        assert_close(velocity, dense, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("feature", sorted(FEATURES - {"delta", "half_delta"}))
def test_a_sparse_step_runs_no_attention(transformer, sample, inputs, feature):
    engine = Engine(transformer, recipe("taylorseer", interval=3, feature=feature))
    engine.begin(GRID, TIMES)
    with torch.no_grad():
        engine.forward(sample, **inputs)
        engine.group.attend = None
        assert engine.forward(sample, **inputs).sample.isfinite().all()


def test_finer_features_hold_more(transformer, sample, inputs):
    held = []
    for feature in ("output", "block", "module"):
        engine = Engine(transformer, recipe("taylorseer", interval=3, feature=feature))
        run(engine, sample, inputs)
        held.append(engine.peak_cache_bytes)
        engine.detach()
    assert held[0] < held[1] < held[2]


def test_reuse_repeats_the_last_dense_output(transformer, sample, inputs):
    velocities = run(Engine(transformer, recipe("fora", interval=3, feature="output")), sample, inputs)
    assert torch.equal(velocities[4], velocities[3])
    assert not torch.equal(velocities[6], velocities[5])


def test_taylorseer_continues_the_line_through_two_dense_steps(transformer, sample, inputs):
    velocities = run(Engine(transformer, recipe("taylorseer", interval=3, feature="output")), sample, inputs)
    slope = (velocities[3] - velocities[0]) / 3
    assert_close(velocities[5], velocities[3] + 2 * slope)


@pytest.mark.parametrize(("context", "feature"), [(NUM_TOKENS, "output"), (24, "output"), (NUM_TOKENS, "stack")])
def test_sparse_step_with_all_tokens_as_proxies_and_fresh_context_is_a_dense_step(
    transformer, sample, inputs, context, feature
):
    """Two calls at one noise level: the context that the dense one leaves is fresh for the sparse one."""
    everyone = TrajectoryMedoids(clusters=NUM_TOKENS, shards=1, context=context, every=1)
    method = Recipe(
        name="resca",
        schedule=Places(dense=(0, 1)),
        tokens=everyone,
        predictor=ProxyTaylor(order=0, gain=1.0),
        feature=feature,
    )
    engine = Engine(transformer, method)
    engine.begin(GRID, [0.8, 0.7, 0.7])
    with torch.no_grad():
        _, dense, sparse = (engine.forward(sample, **inputs).sample for _ in range(3))
    assert_close(sparse, dense, rtol=1e-4, atol=1e-5)


def test_a_proxy_sees_what_it_saw_in_the_dense_step(transformer, sample, inputs):
    """With one proxy a shard and full context, a proxy's own value at the same noise level is the dense one."""
    few = TrajectoryMedoids(clusters=8, shards=8, context=NUM_TOKENS, every=1)
    method = Recipe(name="resca", schedule=SECOND, tokens=few, predictor=ProxyTaylor(order=0, gain=1.0))
    engine = Engine(transformer, method)
    engine.begin(GRID, [0.8, 0.7, 0.7])
    patches = engine.adapter.unfold(sample)
    with torch.no_grad():
        _, dense, sparse = (engine.forward(patches, **inputs).sample for _ in range(3))
    index = engine.generation.passes["sole"].feature.proxies.stage.index
    assert_close(sparse[:, index], dense[:, index], rtol=1e-4, atol=1e-5)


def test_patches_and_latent_videos_give_the_same_velocity(transformer, sample, inputs):
    engine = Engine(transformer, recipe("resca", interval=3, clusters=8))
    whole = run(engine, sample, inputs)
    patches = engine.adapter.unfold(sample)
    for velocity, expected in zip(run(engine, patches, inputs), whole, strict=True):
        assert torch.equal(engine.adapter.fold(velocity, GRID), expected)


@pytest.mark.parametrize("name", JOINT_RECIPES)
def test_a_generation_of_another_size_leaves_no_trace(transformer, sample, inputs, name):
    engine = Engine(transformer, with_interval(name, 3))
    expected = run(engine, sample, inputs)
    engine.begin((2, 4, 6), TIMES)
    with torch.no_grad():
        for time in TIMES[:5]:
            engine.forward(sample[:, :, :2], **{**inputs, "timestep": torch.tensor([1000 * time])})
    assert all(map(torch.equal, run(engine, sample, inputs), expected))


def test_a_model_without_cross_attention_refuses_to_cache_it(transformer):
    with pytest.raises(ValueError, match="t-gate needs a model with cross-attention"):
        Engine(transformer, recipe("t-gate")).begin(GRID, TIMES)


def test_more_steps_than_announced_is_an_error(transformer, sample, inputs):
    engine = Engine(transformer, recipe("full"))
    with pytest.raises(RuntimeError, match="begin"):
        engine.forward(sample, **inputs)


def test_teacache_is_dense_when_its_input_has_changed_enough(transformer, sample, inputs):
    counts = []
    for threshold in (1e-9, 1.0, 1e9):
        engine = Engine(transformer, recipe("teacache", threshold=threshold))
        run(engine, sample, inputs)
        counts.append(engine.dense_steps)
        engine.detach()
    assert counts[0] == len(TIMES)
    assert len(TIMES) > counts[1] > 2
    assert counts[2] == 2  # the first and the last step


def test_teacache_sees_a_change_whose_sum_float16_cannot_hold(transformer, sample, inputs):
    shift = transformer.transformer_blocks[0].norm1.linear.bias
    shift.data[: len(shift) // 6] = 100  # times 96 tokens and 24 channels
    half = {name: value.half() if name != "timestep" else value for name, value in inputs.items()}
    engine = Engine(transformer.half(), recipe("teacache", threshold=1e-9))
    run(engine, sample.half(), half)
    assert engine.dense_steps == len(TIMES)


def test_what_teacache_chose_can_be_repeated(transformer, sample, inputs):
    engine = Engine(transformer, recipe("teacache", threshold=1.0))
    expected = run(engine, sample, inputs)
    settled = engine.settled
    engine.detach()
    again = Engine(transformer, settled)
    assert all(map(torch.equal, run(again, sample, inputs), expected))
    assert again.settled is settled


def compare_with_compiled(transformer, sample, inputs, method, compiler):
    plain = Engine(transformer, method)
    expected = run(plain, sample, inputs)
    plain.detach()
    engine = Engine(transformer, method, compiler=compiler)
    for velocity, true in zip(run(engine, sample, inputs), expected, strict=True):
        assert_close(velocity, true, rtol=1e-3, atol=1e-4)
    engine.detach()
    assert not any("forward" in vars(block) for block in engine.adapter.block_list)


def test_detach_gives_back_what_others_have_put_on_the_instances(transformer):
    block = transformer.single_transformer_blocks[0]
    patched = [partial(module.forward) for module in (transformer, block)]
    transformer.forward, block.forward = patched
    block.compile(backend="eager")
    call = block._compiled_call_impl
    engine = Engine(transformer, recipe("full"), compiler="eager")
    assert block.forward is not patched[1]
    engine.detach()
    assert transformer.forward is patched[0] and block.forward is patched[1] and block._compiled_call_impl is call


def bytes_alive():
    """The memory of every tensor that Python knows of, unreachable ones too: a GPU cannot wait for a collection."""
    known = [each.untyped_storage() for each in gc.get_objects() if type(each) in (torch.Tensor, torch.nn.Parameter)]
    return sum({storage.data_ptr(): storage.nbytes() for storage in known}.values())


@pytest.mark.parametrize("name", JOINT_RECIPES)
def test_after_its_end_a_generation_holds_no_cache_but_its_counts(transformer, sample, inputs, name):
    engine = Engine(transformer, BUSY if name == "resca" else with_interval(name, 3))
    run(engine, sample, inputs)  # what every generation leaves: rotary tables
    engine.end()
    gc.collect()
    before = bytes_alive()
    run(engine, sample, inputs)
    dense, held = engine.dense, engine.peak_cache_bytes
    engine.end()
    engine.end()
    assert bytes_alive() <= before + 1024
    assert (engine.dense, engine.peak_cache_bytes) == (dense, held)
    assert engine.dense_steps + engine.sparse_steps == len(engine.times) and engine.settled.name == engine.recipe.name
    with pytest.raises(RuntimeError, match="begin"):
        engine.forward(sample, **inputs)


def test_after_its_end_another_generation_can_begin(transformer, sample, inputs):
    engine = Engine(transformer, BUSY)
    expected = run(engine, sample, inputs)
    engine.end()
    assert all(map(torch.equal, run(engine, sample, inputs), expected))


BUSY = replace(RECIPES["resca"], schedule=Interval(every=3), tokens=TrajectoryMedoids(clusters=8, every=1))
QUICK = ("resca", "toca")  # blocks of joint attention on proxies, and on some tokens among the keys of others
OTHERS = [name for name in JOINT_RECIPES if name not in QUICK]


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)])
def test_blocks_are_captured_whole(transformer, sample, inputs, name):
    """A graph break in a recipe above module level would be an error (fullgraph)."""
    compare_with_compiled(transformer, sample, inputs, BUSY if name == "resca" else with_interval(name, 3), "eager")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_compiled_blocks_give_the_same(transformer, sample, inputs, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))  # a killed run can leave half a file in the usual one
    compare_with_compiled(transformer, sample, inputs, BUSY, "inductor")
