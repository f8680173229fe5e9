"""Where dense steps stand."""

import pytest

from caching.recipe.schedule import even_places
from jobs.measure.tune.places import improve, moves, spread, through

SHIFTED = [7 * t / (1 + 6 * t) for t in (1 - step / 50 for step in range(50))]


@pytest.mark.parametrize("budget", range(1, 51))
def test_bend_0_is_an_even_spread(budget):
    assert spread(SHIFTED, budget, 0.0) == even_places(50, budget)


def test_more_bend_moves_dense_steps_to_where_the_noise_level_falls_fast():
    even, bent = spread(SHIFTED, 9, 0.0), spread(SHIFTED, 9, 0.5)
    assert all(late >= early for early, late in zip(even, bent, strict=True))
    assert bent != even


@pytest.mark.parametrize("budget", [1, 2, 9, 49, 50])
@pytest.mark.parametrize("bend", [0.0, 0.5, 1.0, 3.0])
def test_a_spread_is_a_schedule(budget, bend):
    places = spread(SHIFTED, budget, bend)
    assert len(places) == len(set(places)) == budget
    assert list(places) == sorted(places)
    assert places[0] == 0 and places[-1] < 50


def test_impossible_budgets_are_refused():
    with pytest.raises(ValueError, match="between 1 and 50"):
        spread(SHIFTED, 51, 0.0)


def test_moves_keep_order_and_the_first_step():
    for candidate in moves((0, 3, 4, 9), 10, 1):
        assert candidate[0] == 0
        assert list(candidate) == sorted(set(candidate))
        assert candidate[-1] < 10


def test_a_schedule_is_led_through_steps_that_have_to_be_dense():
    assert through((0, 6, 12, 18), (11,)) == (0, 6, 11, 18)
    assert through((0, 6, 12, 18), (12,)) == (0, 6, 12, 18)
    assert through((0, 6), (3, 5)) == (0, 3, 5)
    assert {each[1] for each in moves((0, 5, 7), 10, 1, fixed=(5,))} == {5}


def test_improve_finds_the_best_places_of_a_simple_score():
    goal = (0, 4, 11, 19)

    def nearer(new, old):
        return sum(map(distance, new, goal)) < sum(map(distance, old, goal))

    assert improve((0, 5, 10, 15), 20, nearer, lambda: True) == goal


def test_improve_asks_no_more_often_than_allowed():
    asked = []

    def earlier(new, old):
        asked.append(new)
        return sum(new) < sum(old)

    improve((0, 5, 10, 15), 20, earlier, lambda: len(asked) < 7)
    assert len(asked) == 7


def distance(a, b):
    return abs(a - b)
