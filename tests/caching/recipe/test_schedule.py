"""Which steps are dense."""

import pytest

from caching.recipe.by_values import InputChange, OutputChange
from caching.recipe.clock import Signals
from caching.recipe.recipe import recipe
from caching.recipe.schedule import Broadcast, Even, FewerSteps, GrowingInterval, Interval, Places, even_places


def decisions(schedule, num_steps, change: float | None = 0.0):
    clock = schedule.start(num_steps)
    signals = Signals(input_change=lambda: change, output_change=lambda: change)
    return [clock.is_dense(step, signals) for step in range(num_steps)]


def test_an_interval_begins_with_a_dense_step():
    assert decisions(Interval(every=3), 7) == [True, False, False, True, False, False, True]


def test_first_and_last_steps_can_all_be_dense():
    assert decisions(Interval(every=3, first=2, last=2), 9) == [
        True,
        True,
        False,
        False,
        True,
        False,
        False,
        True,
        True,
    ]


def places(schedule, num_steps, change: float | None = 0.0):
    return [step for step, dense in enumerate(decisions(schedule, num_steps, change)) if dense]


def test_kinds_of_attention_begin_intervals_of_their_own_between_the_first_and_the_last_steps():
    schedule = Broadcast(every=2, time=3, text=4, first=3, last=2)

    def steps(every: int) -> list[int]:
        return [step for step in range(14) if schedule.begins(step, 14, every)]

    assert steps(schedule.every) == [0, 1, 2, 4, 6, 8, 10, 12, 13]
    assert steps(schedule.time) == [0, 1, 2, 5, 8, 11, 12, 13]
    assert steps(schedule.text) == [0, 1, 2, 6, 10, 12, 13]
    assert [step for step, dense in enumerate(decisions(schedule, 14)) if dense] == steps(schedule.every)
    assert [schedule.phase(step, 14) for step in range(14)] == [0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 0]


def test_with_another_interval_those_of_other_kinds_grow_along():
    changed = recipe("pab", interval=5).schedule
    assert isinstance(changed, Broadcast)
    assert (changed.every, changed.time, changed.text, changed.first, changed.last) == (5, 7, 9, 8, 7)


@pytest.mark.parametrize("kind", ["every", "time", "text"])
def test_an_interval_of_attention_has_one_step_at_least(kind):
    with pytest.raises(ValueError, match="interval must be at least 1, not 0"):
        Broadcast(**{kind: 0})


def test_intervals_can_grow_by_parts_of_a_step():
    assert places(GrowingInterval(every=2, growth=0.75, first=5), 25) == [0, 1, 2, 3, 4, 6, 8, 11, 15, 20]
    assert places(GrowingInterval(every=3, growth=0.0, first=1), 11) == places(Interval(every=3), 11)


def test_fewer_steps_are_as_many_as_an_interval_has_dense_ones():
    for steps in (1, 6, 7, 50):
        assert FewerSteps(every=6).num_steps(steps) == sum(decisions(Interval(every=6), steps))
    assert decisions(FewerSteps(every=6), 9) == [True] * 9


def test_places_always_include_the_first():
    assert decisions(Places(dense=(3, 5)), 6) == [True, False, False, True, False, True]


def test_input_change_adds_up_until_the_threshold():
    assert decisions(InputChange(threshold=0.25), 8, change=0.1) == [True, False, False, True, False, False, True, True]


def test_input_change_is_rescaled_by_the_polynomial():
    """2 x^2 + 0.01 at x = 0.2 is 0.09."""
    dense = decisions(InputChange(threshold=0.18, rescale=(2.0, 0.0, 0.01)), 6, change=0.2)
    assert dense == [True, False, True, False, True, True]


def test_without_values_input_change_is_a_typical_interval():
    assert decisions(InputChange(typical=2), 5, change=None) == [True, False, True, False, True]


def test_changes_of_the_output_add_up_after_the_first_steps():
    schedule = OutputChange(threshold=0.25, first=2, typical=4)
    assert places(schedule, 10, change=0.1) == [0, 1, 4, 7, 9]
    assert places(schedule, 10, change=float("inf")) == list(range(10))
    assert places(schedule, 10, change=None) == [0, 1, 5, 9]


def test_nothing_is_kept_after_the_last_sparse_step():
    clock = Interval(every=3).start(7)
    assert clock.may_be_sparse_after(4)
    assert not clock.may_be_sparse_after(5)
    assert not InputChange().start(7).may_be_sparse_after(5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Interval(every=0),
        lambda: GrowingInterval(growth=-1.0),
        lambda: Places(dense=(-1,)),
        lambda: InputChange(threshold=0.0),
        lambda: OutputChange(threshold=0.0),
        lambda: OutputChange(first=0),
    ],
)
def test_impossible_schedules_are_refused(make):
    with pytest.raises(ValueError, match="not"):
        make()


def test_a_published_fit_is_used_unless_another_is_given():
    assert InputChange().fitted(None).rescale == (1.0, 0.0)
    assert InputChange().fitted((2.0, 1.0)).rescale == (2.0, 1.0)
    assert InputChange(rescale=(3.0, 0.0)).fitted((2.0, 1.0)).rescale == (3.0, 0.0)


@pytest.mark.parametrize(
    ("steps", "every", "expected"),
    [
        (50, 6, list(range(0, 50, 6))),
        (50, 10, [0, 12, 24, 36, 48]),
        (30, 6, [0, 7, 14, 21, 28]),
        (50, 49, [0, 48]),
        (6, 6, [0]),
        (5, 1, [0, 1, 2, 3, 4]),
        (1, 6, [0]),
    ],
)
def test_even_dense_steps_reach_to_the_last_step_but_one(steps, every, expected):
    assert places(Even(every=every), steps) == expected
    assert len(expected) == sum(decisions(Interval(every=every), steps))


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 50])
def test_any_number_of_even_dense_steps_can_be_had(steps):
    for budget in range(1, steps + 1):
        found = even_places(steps, budget)
        assert len(set(found)) == budget and found[0] == 0 and list(found) == sorted(found) and found[-1] < steps
    with pytest.raises(ValueError, match="can be dense"):
        even_places(steps, steps + 1)
