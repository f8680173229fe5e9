"""What is promised of prompts that nothing was fitted to."""

from random import Random

import pytest
from rich.console import Console

from caching.recipe.recipe import RECIPES
from jobs.measure.tune.held_out import CONFIDENCE, HeldOut, auto_at, bound_of_tenth, promise_of
from tests.jobs.measure.tune.tiny_judge import make_judge


@pytest.mark.parametrize("number", [16, 32, 64])
def test_at_most_one_in_ten_is_below_as_often_as_is_said(number):
    random, tenth = Random(number), -1.2816  # of a normal distribution
    kept = [bound_of_tenth([random.gauss() for _ in range(number)]) <= tenth for _ in range(4000)]
    assert CONFIDENCE - 0.03 < sum(kept) / len(kept) < 0.95


def test_of_few_prompts_the_worst_is_all_that_can_be_said():
    promise = promise_of([50.0, 40.0, 45.0])
    assert (promise.prompts, promise.mean_db, promise.tenth_db, promise.worst_db) == (3, 45.0, 40.0, 40.0)


def test_methods_that_are_measured_together_have_the_figures_of_each_alone(tmp_path):
    judge, quiet = make_judge("hunyuan_video", tmp_path, steps=6), Console(quiet=True)
    auto, none = auto_at((0, 2, 4), 6), RECIPES["full"]
    held = HeldOut(judge, quiet)
    together = held.measure(auto, none)
    assert together == [*HeldOut(judge, quiet).measure(auto), *HeldOut(judge, quiet).measure(none)]
    assert max(together[0]) < 100 == min(together[1]) and held.is_worse(auto, none)
    spent = judge.dense_steps
    assert held.measure(none, auto) == together[::-1] and held.mean_latent_db(none) == 100
    assert judge.dense_steps == spent, "each is measured once"
