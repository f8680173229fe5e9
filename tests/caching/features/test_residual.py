"""The velocity less the latents, and a schedule that goes by how the velocity changes with them (EasyCache)."""

from dataclasses import replace
from math import inf

import pytest
import torch
from torch.testing import assert_close

from caching.engine import Engine
from caching.group import LocalGroup
from caching.predict.rate import TransformationRate
from caching.recipe.by_values import OutputChange
from caching.recipe.recipe import RECIPES, Recipe, recipe
from caching.recipe.schedule import Places
from tests.caching.test_engine import TIMES, run


def test_a_sparse_step_adds_to_its_latents_what_the_dense_step_added_to_its_own(transformer, sample, inputs):
    method = Recipe(name="x", schedule=Places(dense=(0, 2)), predictor=RECIPES["fora"].predictor, feature="residual")
    velocities = run(Engine(transformer, method), sample, inputs)
    latents = [sample]
    for time, following, velocity in zip(TIMES, [*TIMES[1:], 0.0], velocities, strict=True):
        latents.append(latents[-1] + (following - time) * velocity)
    for dense, sparse in ((0, 1), (2, 3), (2, 6)):
        assert_close(velocities[sparse] - latents[sparse], velocities[dense] - latents[dense])
        assert not torch.equal(velocities[sparse], velocities[dense])


def test_the_expected_change_is_that_of_the_latents_times_the_last_rate():
    rate, latents = TransformationRate(LocalGroup()), torch.randn(3, 1, 4, 2)
    assert rate.expected(latents[0], 1) == inf
    rate.observe(latents[0], 5 - 2 * latents[0])
    assert rate.expected(latents[1], 2) == inf  # one dense step shows no change
    rate.observe(latents[1], 5 - 2 * latents[1])
    change = 2 * (latents[2] - latents[1]).abs().sum() / (5 - 2 * latents[1]).abs().sum()
    assert rate.expected(latents[2], 3) == pytest.approx(float(change))
    assert rate.expected(latents[2], 4) == 0


def test_easycache_is_dense_when_its_output_must_have_changed_enough(transformer, sample, inputs):
    counts = []
    for threshold in (1e-9, 1.0, 1e9):
        method = Recipe(
            name="easycache",
            schedule=OutputChange(threshold=threshold, first=2),
            predictor=RECIPES["easycache"].predictor,
            feature="residual",
        )
        engine = Engine(transformer, method)
        run(engine, sample, inputs)
        counts.append(engine.dense_steps)
        engine.detach()
    assert counts[0] == len(TIMES)
    assert len(TIMES) > counts[1] > 3
    assert counts[2] == 3  # the first two steps and the last


@pytest.mark.parametrize("change", [{"feature": "output"}, {"tokens": RECIPES["tomesd"].tokens}], ids=str)
def test_changes_of_the_output_are_told_from_the_residual_alone(change):
    with pytest.raises(ValueError, match="what the feature residual keeps, without tokens"):
        replace(RECIPES["easycache"], **change)


def test_easycache_has_its_feature_for_good():
    with pytest.raises(ValueError, match="has no option 'feature'"):
        recipe("easycache", feature="output")
