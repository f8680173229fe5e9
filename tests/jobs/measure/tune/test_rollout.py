"""Fitting weights while sampling, for real, on a tiny pipeline."""

import pytest
import torch

from caching.predict.multistep import Evidence
from caching.recipe.recipe import Multistep, Recipe
from caching.recipe.schedule import Places
from jobs.measure.tune.places import spread, through
from jobs.measure.tune.rollout import Rollouts
from tests.jobs.measure.tune.tiny_judge import KINDS, make_judge

pytestmark = pytest.mark.timeout(300)
STEPS = 10


@pytest.fixture(scope="module", params=KINDS)
def judge(request, tmp_path_factory):
    """Of a model of one pass with Euler's steps, of one of two with UniPC's, and of two transformers."""
    return make_judge(request.param, tmp_path_factory.mktemp("model"), steps=STEPS)


def test_with_all_steps_dense_it_ends_where_full_sampling_does(judge):
    assert min(Rollouts(judge).latent_db(tuple(range(STEPS)))) > 90


def test_a_recipe_renders_what_was_fitted(judge):
    places = through((0, 2, 5, 9), judge.takeovers)
    rollout = Rollouts(judge).fit(places)
    method = Recipe(name="x", schedule=Places(dense=places), predictor=Multistep(weights=rollout.weights))
    for mine, fitted in zip(judge.sample(method), rollout.latents, strict=True):
        torch.testing.assert_close(mine, fitted, rtol=1e-3, atol=1e-4)


def test_fitted_weights_come_nearer_than_those_of_the_solver(judge, monkeypatch):
    places = through((0, 2, 5, 8), judge.takeovers)
    fitted = Rollouts(judge).latent_db(places)
    monkeypatch.setattr(Evidence, "weights", property(lambda evidence: evidence.prior))
    assert sum(fitted) > sum(Rollouts(judge).latent_db(places))


def test_crossed_prompts_are_sampled_by_the_weights_of_the_others(judge):
    rollouts, places = Rollouts(judge), through((0, 2, 5, 8), judge.takeovers)
    if not judge.takeovers:  # with a second stage, the second prompt too is sampled by weights of the other
        of_the_second = Multistep(weights=Rollouts(judge, only=[1]).fit((0,)).weights)
        method = Recipe(name="x", schedule=Places(dense=(0,)), predictor=of_the_second)
        crossed = rollouts.fit((0,), crossed=True).latents[0]
        torch.testing.assert_close(crossed, judge.sample(method)[0].cpu(), rtol=1e-3, atol=1e-4)
    assert sum(rollouts.latent_db(places)) > sum(rollouts.latent_db(places, crossed=True))


def test_a_common_beginning_is_sampled_once(judge, monkeypatch):
    rollouts, (*places, last) = Rollouts(judge), through((0, 2, 5, 8), judge.takeovers)
    rollouts.fit((*places, last))
    before = judge.dense_steps
    rollouts.fit((*places, last + 1))
    assert judge.dense_steps - before == len(judge.items)  # of the last step alone
    monkeypatch.setattr("jobs.measure.tune.rollout.MAX_KNOWN", 20)
    for bend in range(40):
        rollouts.fit(through(spread(rollouts.levels[:-1], 5, bend / 20), judge.takeovers))
    assert len(rollouts.known) <= 20 // len(judge.items)


def test_only_some_prompts_can_be_sampled(judge):
    both, second = Rollouts(judge), Rollouts(judge, only=[1])
    assert len(both.latent_db((0, 4))) == 2
    before = judge.dense_steps
    rollout = second.fit((0, 4))
    assert (len(rollout.latents), judge.dense_steps - before) == (1, 2)
    reference = judge.references[1]
    assert (rollout.latents[0] - reference).norm() < 0.5 * (both.fit((0, 4)).latents[0] - reference).norm()
