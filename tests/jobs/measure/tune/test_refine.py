"""Refining weights end to end, for real, on a tiny pipeline."""

import pytest
import torch

from jobs.measure.tune.places import through
from jobs.measure.tune.refine import MOST_REFINED, Refinement, Slope, dense_steps_to_refine, moved, nudges
from jobs.measure.tune.rollout import Rollouts
from tests.jobs.measure.tune.tiny_judge import KINDS, make_judge

pytestmark = pytest.mark.timeout(300)
STEPS, PLACES = 10, (0, 2, 6)


@pytest.fixture(scope="module", params=KINDS)
def judge(request, tmp_path_factory):
    """Of a model of one pass with Euler's steps, of one of two with UniPC's, and of two transformers."""
    return make_judge(request.param, tmp_path_factory.mktemp("model"), steps=STEPS)


def test_a_step_lowers_what_is_quadratic_to_its_least():
    torch.manual_seed(0)
    rows, wanted = torch.randn(4, 50, dtype=torch.float64), torch.randn(50, dtype=torch.float64)
    slope = Slope(gram=rows @ rows.T, product=rows @ -wanted)
    best = torch.linalg.lstsq(rows.T, wanted[:, None]).solution[:, 0]
    torch.testing.assert_close(slope.step(0.0), best, rtol=1e-4, atol=1e-6)
    assert slope.step(1.0).norm() < slope.step(0.0).norm()


def test_weights_are_moved_in_the_order_in_which_they_are_nudged():
    weights = ((1.0,), (2.0, 3.0))
    assert list(nudges((2.0, 3.0))) == [(2.02, 3.0), (2.0, 3.02)]
    assert moved(weights, torch.tensor([0.5, -1.0, 1.0])) == ((1.5,), (1.0, 4.0))


def test_a_slope_says_what_a_small_change_of_weights_does(judge):
    rollouts, places = Rollouts(judge), through(PLACES, judge.takeovers)
    weights, refinement = rollouts.fit(places).weights, Refinement(rollouts)
    spent = judge.dense_steps
    slope = refinement._slope(0, places, weights)
    number = sum(map(len, weights))  # fewer where rows begin again
    assert judge.dense_steps - spent + 4 * 3 == dense_steps_to_refine(3) or number < 6
    change = 0.003 * torch.randn(number, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    others = [moved(weights, sign * change) for sign in (1, -1)]
    more, less = (10 ** (-refinement._latent_db(places, [each, each])[0] / 10) for each in others)
    now = 10 ** (-refinement._latent_db(places, [weights, weights])[0] / 10)
    assert (more - less) / now == pytest.approx(float(4 * slope.product @ change), rel=0.05)


def test_it_is_taken_only_where_prompts_gain_that_had_no_part_in_it(judge):
    rollouts, places = Rollouts(judge), through(PLACES, judge.takeovers)
    fitted, refinement = rollouts.fit(places).weights, Refinement(rollouts)
    before = refinement._latent_db(places, [fitted, fitted])
    refined = refinement.refine(places, fitted)
    assert refinement.found.startswith(tuple("0123456789"))
    # With two prompts each is judged by the step of the other alone; what is taken serves both.
    after = refinement._latent_db(places, [refined or fitted] * 2)
    assert sum(after) >= sum(before)
    late = Refinement(rollouts, until=0.0)
    assert late.refine(places, fitted) is None and "time" in late.found


def test_what_it_takes_stays_within_bounds():
    assert dense_steps_to_refine(9) == 9 + 120 + 36
    assert dense_steps_to_refine(MOST_REFINED) < 450
