"""Weighted sums of dense velocities, and the weights."""

from dataclasses import replace
from itertools import pairwise

import pytest
import torch

from caching.engine import Engine
from caching.predict.multistep import Evidence, solver_weights
from caching.recipe.recipe import RECIPES, Multistep, Recipe, Taylor
from caching.recipe.schedule import Interval, Places
from tests.caching.test_engine import TIMES, run


def test_the_solver_is_exact_for_a_velocity_that_is_linear_in_time():
    nodes, stage = [1.0, 0.9, 0.7], [0.7, 0.6, 0.45, 0.4]

    def velocity(time):
        return 2 - 3 * time

    true = sum((after - at) * velocity(at) for at, after in pairwise(stage)) / (stage[-1] - stage[0])
    row = solver_weights(nodes, stage)
    assert sum(weight * velocity(node) for weight, node in zip(row, nodes, strict=True)) == pytest.approx(true)
    assert solver_weights([1.0], [1.0, 0.9]) == (1.0,)
    assert solver_weights(nodes, [0.7, 0.6]) == (0.0, 0.0, 1.0)


def test_weights_are_found_again():
    velocities = [[torch.randn(2, 5, 3) for _ in range(3)] for _ in range(2)]
    true = (0.3, -1.0, 1.6)
    wanted = [sum(weight * value for weight, value in zip(true, values, strict=True)) for values in velocities]
    videos = [Evidence.of(values, goal, (0.0, 0.0, 1.0)) for values, goal in zip(velocities, wanted, strict=True)]
    assert Evidence.total(videos).weights == pytest.approx(true, abs=1e-3)
    assert Evidence.total(videos).without(videos[0]).weights == pytest.approx(videos[1].weights)


def test_where_the_data_say_nothing_weights_stay_what_they_were():
    same = torch.randn(4, 3)
    assert Evidence.of([same, same], same, (-0.5, 1.5)).weights == pytest.approx((-0.5, 1.5), abs=1e-6)


def fitted(weights, places, **others):
    return Recipe(name="x", schedule=Places(dense=places), predictor=Multistep(weights=weights), **others)


def test_every_step_of_a_stage_answers_the_same_sum(transformer, sample, inputs):
    full = run(Engine(transformer, RECIPES["full"]), sample, inputs)
    rows = ((0.5,), (2.0, -1.0))
    engine = Engine(transformer, fitted(rows, (0, 3)))
    outputs = run(engine, sample, inputs)
    engine.detach()
    assert engine.dense_steps == 2 and engine.peak_cache_bytes == 3 * outputs[0].nbytes
    for step in range(3):
        assert torch.allclose(outputs[step], 0.5 * full[0], atol=1e-6)
    for output in outputs[4:]:
        assert torch.equal(output, outputs[3])


def test_with_all_steps_dense_it_is_full_sampling_to_the_bit(transformer, sample, inputs):
    full = run(Engine(transformer, RECIPES["full"]), sample, inputs)
    rows = tuple((*[0.0] * number, 1.0) for number in range(len(TIMES)))
    outputs = run(Engine(transformer, fitted(rows, tuple(range(len(TIMES))))), sample, inputs)
    assert all(map(torch.equal, outputs, full))


@pytest.mark.parametrize(
    "change",
    [
        {"schedule": Interval(every=6)},
        {"schedule": Places(dense=(0, 2, 3))},
        {"feature": "stack"},
    ],
    ids=str,
)
def test_weights_belong_to_their_dense_steps_and_to_the_output(change):
    good = fitted(((1.0,), (0.0, 1.0)), (0, 2))
    with pytest.raises(ValueError, match="the predictor multistep"):
        replace(good, **change)
    assert replace(good, schedule=Interval(every=6), predictor=Taylor())


def test_rows_grow_by_one():
    with pytest.raises(ValueError, match="one for each dense step"):
        Multistep(weights=((1.0,), (0.5, 0.5), (0.5, 0.5)))
