"""A generation that is taken down between any two steps, and gone on with by another engine, ends in the same bits."""

import json
from collections import deque
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, save

from caching.engine import Engine
from caching.features.blocks import Unit
from caching.recipe.by_values import InputChange, OutputChange
from caching.recipe.recipe import RECIPES, Recipe, Taylor, recipe
from caching.recipe.schedule import Interval, Places
from caching.recipe.tokens import TrajectoryMedoids
from caching.snapshot import STATE_VERSION, Snapshot, capture, restore
from tests.caching.conftest import GRID, JOINT_RECIPES, make_transformer
from tests.caching.models.test_wan import make_transformer as make_transformer_of_wan
from tests.caching.models.test_wan import short
from tests.caching.predict.test_multistep import fitted
from tests.caching.test_engine import FEATURES, with_interval

TIMES = [0.95, 0.9, 0.8, 0.7, 0.55, 0.4, 0.3, 0.2, 0.1]
CPU = torch.device("cpu")
PROXIES = TrajectoryMedoids(clusters=16, every=1)
METHODS = {
    **{name: with_interval(name, 3) for name in JOINT_RECIPES if name not in ("full", "resca")},
    **{f"taylorseer by {feature}": recipe("taylorseer", interval=3, feature=feature) for feature in sorted(FEATURES)},
    "full": RECIPES["full"],
    "resca": replace(RECIPES["resca"], schedule=Interval(every=3), tokens=PROXIES),
    "resca with a pooled context": replace(
        RECIPES["resca"], schedule=Interval(every=3), tokens=replace(PROXIES, context=24), feature="stack"
    ),
    "teacache by its input": replace(RECIPES["teacache"], schedule=InputChange(threshold=1.0)),
    "easycache by its output": replace(RECIPES["easycache"], schedule=OutputChange(threshold=1.0, first=2)),
    "duca by likeness": recipe("duca", interval=3, score="similarity:min"),
    "fitted weights": fitted(((1.0,), (-0.5, 1.5), (0.1, -0.5, 1.4)), (0, 3, 6)),
    "corrected": Recipe(name="x", schedule=Places(dense=(0, 3, 8)), predictor=Taylor(order=2, correction=0.5)),
}


def begun(method, make=make_transformer):
    engine = Engine(make(), method)
    engine.begin(GRID, TIMES)
    return engine


def stored_and_read(snapshot):
    """The same by way of bytes."""
    tensors, structure = save(snapshot.tensors), json.dumps(snapshot.structure)
    return Snapshot(tensors=load(tensors), structure=json.loads(structure))


def go_on(engine, latents, inputs):
    """The steps that are left, by Euler: the final latents `[B, N, P]`, and a snapshot after each step."""
    snapshots = []
    with torch.no_grad():
        while engine.step < len(TIMES):
            time, following = [*TIMES, 0.0][engine.step : engine.step + 2]
            given = {**inputs, "timestep": torch.tensor([1000 * time])}
            latents = latents + (following - time) * engine.forward(latents, **given).sample
            snapshots.append(stored_and_read(engine.snapshot(latents)))
    return latents, snapshots


def check_every_step(method, make, sample, inputs):
    engine = begun(method, make)
    expected, snapshots = go_on(engine, engine.adapter.unfold(sample), inputs)
    for snapshot in snapshots:
        other = begun(method, make)
        latents, _ = go_on(other, other.restore(snapshot)[0], inputs)
        assert torch.equal(latents, expected)
        assert other.dense == engine.dense and other.peak_cache_bytes == engine.peak_cache_bytes
    return engine


@pytest.mark.parametrize("name", METHODS)
def test_after_every_step_another_engine_goes_on_to_the_same_bits(name, sample, inputs):
    engine = check_every_step(METHODS[name], make_transformer, sample, inputs)
    assert 1 <= engine.dense_steps < len(TIMES) or name in ("full", "steps")


@pytest.mark.parametrize("name", ["t-gate", "delta-dit", "pab", "chipmunk"])
def test_wan_goes_on_to_the_same_bits(name, sample, inputs):
    given = {"encoder_hidden_states": inputs["encoder_hidden_states"]}
    assert check_every_step(short(name, 3), make_transformer_of_wan, sample, given).sparse_steps


def test_a_snapshot_can_be_taken_of_a_generation_that_went_on_from_one(sample, inputs):
    engine = begun(METHODS["resca"])
    expected, snapshots = go_on(engine, engine.adapter.unfold(sample), inputs)
    for first, second in ((1, 2), (4, 1)):
        other, third = begun(METHODS["resca"]), begun(METHODS["resca"])
        _, later = go_on(other, other.restore(snapshots[first])[0], inputs)
        assert torch.equal(go_on(third, third.restore(later[second])[0], inputs)[0], expected)


def test_a_generation_ends_the_same_whether_snapshots_are_taken_or_not(sample, inputs):
    engine = begun(METHODS["resca"])
    expected, _ = go_on(engine, engine.adapter.unfold(sample), inputs)
    plain = begun(METHODS["resca"])
    plain.snapshot = lambda latents: Snapshot(tensors={}, structure=None)
    assert torch.equal(go_on(plain, plain.adapter.unfold(sample), inputs)[0], expected)


def passed_on(state):
    return restore(stored_and_read(capture(state)), CPU)


def test_what_shares_memory_still_does():
    whole = torch.arange(24.0).view(4, 6)
    state = passed_on({"whole": whole, "part": whole[:, 2:4].T, "same": [whole, whole], "wide": whole[:1].expand(3, 6)})
    state["whole"][1, 2] = -1
    assert state["part"][0, 1] == -1 and state["same"][1][1, 2] == -1
    assert state["part"].stride() == (1, 6) and state["wide"].stride() == (0, 1)
    assert capture({"whole": whole, "part": whole[1]}).num_bytes == whole.nbytes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_tensors_of_any_kind_come_back(dtype):
    tensors = [torch.ones(3, 2).to(dtype), torch.zeros(()).to(dtype), torch.zeros(0, 4).to(dtype)]
    for back, tensor in zip(passed_on({"tensors": tensors})["tensors"], tensors, strict=True):
        assert back.dtype == dtype and back.shape == tensor.shape and torch.equal(back, tensor)


def test_numbers_and_words_come_back_exactly():
    plain = {"a": [0.1, float("inf"), -1, True, None, "x", {"y": [1, [2.5]]}], "b": {}}
    assert passed_on(plain) == plain


def test_a_unit_goes_on_from_its_state():
    unit, other = Unit(order=1), Unit(order=1)
    for time in (0.9, 0.5):
        unit.observe(time, (torch.full((2,), time), torch.ones(1)))
    other.load_state_dict(passed_on(unit.state_dict()))
    for ours, theirs in zip(unit.predict(0.2), other.predict(0.2), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(
    "odd", [torch.Generator(), deque(), {1: 2}, {3}, (1,), Unit(order=0), print, torch.nn.Parameter(torch.ones(1))]
)
def test_what_cannot_be_taken_down_is_refused_by_its_place(odd):
    with pytest.raises(TypeError, match=r"the state\.outer\[1\].* a checkpoint cannot hold"):
        capture({"outer": [None, odd]})


@pytest.mark.parametrize("structure", [None, [], {"version": 0, "state": {"dict": {}}}, {"version": STATE_VERSION}])
def test_a_snapshot_of_another_version_is_refused(structure):
    with pytest.raises(ValueError, match=f"none of version {STATE_VERSION}"):
        restore(Snapshot(tensors={}, structure=structure), CPU)
