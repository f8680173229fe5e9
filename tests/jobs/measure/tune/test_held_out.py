"""What is promised of prompts that nothing was fitted to."""

from random import Random

import pytest

from jobs.measure.tune.held_out import CONFIDENCE, bound_of_tenth, promise_of


@pytest.mark.parametrize("number", [16, 32, 64])
def test_at_most_one_in_ten_is_below_as_often_as_is_said(number):
    random, tenth = Random(number), -1.2816  # of a normal distribution
    kept = [bound_of_tenth([random.gauss() for _ in range(number)]) <= tenth for _ in range(4000)]
    assert CONFIDENCE - 0.03 < sum(kept) / len(kept) < 0.95


def test_of_few_prompts_the_worst_is_all_that_can_be_said():
    promise = promise_of([50.0, 40.0, 45.0])
    assert (promise.prompts, promise.mean_db, promise.tenth_db, promise.worst_db) == (3, 45.0, 40.0, 40.0)
