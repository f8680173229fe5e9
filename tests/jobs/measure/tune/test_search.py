"""How places are chosen, on tables of fidelity instead of a model."""

from dataclasses import dataclass, field

import pytest

from jobs.measure.tune.places import Steps
from jobs.measure.tune.search import MOST_PER_DENSE_STEP, Search

LEVELS = [*(1 - step / 50 for step in range(50)), 0.0]


@dataclass
class Table:
    """Stands where roll-outs do: the fidelity of four prompts by places; what is not named has the last one's."""

    fidelity: dict[Steps, list[float]]
    others: list[float] = field(default_factory=lambda: [30.0, 30.0, 30.0, 30.0])
    levels = LEVELS
    steps = 50
    takeovers: Steps = ()
    asked: int = 0

    def latent_db(self, places: Steps, *, crossed: bool) -> list[float]:
        assert crossed
        self.asked += 1
        return self.fidelity.get(places, self.others)


EVEN, NEAR = (0, 10, 20, 30, 40), (0, 10, 20, 30, 43)


@pytest.mark.parametrize(
    ("fidelity", "moves"),
    [
        ([32.0, 32.0, 31.5, 31.0], True),
        ([30.1, 29.0, 34.0, 30.0], False),  # the worst prompt loses
        ([30.1, 30.0, 30.0, 30.0], False),  # no more than chance
    ],
)
def test_dense_steps_move_where_all_prompts_gain(fidelity, moves):
    search = Search(Table({NEAR: fidelity}), lambda line: None)
    assert search.is_better(NEAR, EVEN) is moves


def test_where_a_model_takes_over_is_a_dense_step_of_every_schedule():
    table = Table({(0, 10, 17, 30, 43): [40.0] * 4}, takeovers=(17,))
    search = Search(table, lambda line: None)
    assert search.even(2) == (0, 17) and search.even(1) == (0, 17)
    assert 17 in search.at(5) and all(17 in places for places in search.known)


def test_a_search_asks_no_more_than_it_may():
    search = Search(Table({}), lambda line: None)
    for guess in range(200):
        search.is_better((0, guess + 1, 300), EVEN)
    assert search.rollouts.asked == 201
    late = Search(Table({}), lambda line: None, until=0.0)
    assert not late.known and MOST_PER_DENSE_STEP > 0


def test_the_fewest_dense_steps_are_found():
    class Rising(Table):
        def latent_db(self, places: Steps, *, crossed: bool) -> list[float]:
            return [20.0 + len(places)] * 4

    assert Search(Rising({}), lambda line: None).fewest(31.5) == 12
    assert Search(Rising({}), lambda line: None).fewest(99.0) == 50
