"""Turns of several batches on one gang, by a clock that the test moves."""

from itertools import count, pairwise
from random import Random

import pytest

from cluster.turns import Turns


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Gang:
    """A gang on which batches take turns; each asks anew as long as it has items."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.turns = Turns(claim_s=40, clock=self.clock)
        self.order: list[str] = []
        self.served_s: dict[str, float] = {}

    def serve(self, priorities: dict[str, float], num: int, seconds) -> None:
        for batch, priority in priorities.items():
            self.turns.ask(batch, priority)
        for _ in range(num):
            batch = self.turns.holder
            assert batch is not None
            lasts = seconds(batch)
            self.clock.now_s += lasts
            self.order.append(batch)
            self.served_s[batch] = self.served_s.get(batch, 0) + lasts
            for other in priorities:  # those that wait show that they are there, and the one that is done asks again
                if other != batch:
                    self.turns.ask(other, priorities[other])
            self.turns.ask(batch, priorities[batch])


@pytest.mark.parametrize("priorities", [{"a": 3, "b": 2, "c": 1}, {"a": 1, "b": 1, "c": 1}, {"a": 10, "b": 5, "c": 1}])
def test_of_100_items_each_batch_gets_the_part_that_it_asked_for(priorities):
    gang = Gang()
    gang.serve(priorities, 100, lambda batch: 1.0)
    for batch, priority in priorities.items():
        assert gang.order.count(batch) == pytest.approx(100 * priority / sum(priorities.values()), abs=1)


def test_what_is_shared_is_time_whatever_a_batch_has_for_items():
    """Of long ones it gets fewer done."""
    gang, draw = Gang(), Random(0)
    lasts = {"a": 8.0, "b": 2.0, "c": 0.5}
    gang.serve({"a": 3, "b": 2, "c": 1}, 1000, lambda batch: lasts[batch] * (0.5 + draw.random()))
    total_s = sum(gang.served_s.values())
    assert {batch: served_s / total_s for batch, served_s in gang.served_s.items()} == pytest.approx(
        {"a": 3 / 6, "b": 2 / 6, "c": 1 / 6}, rel=0.1
    )


def test_none_starves_beside_one_of_the_highest_priority():
    gang = Gang()
    gang.serve({"high": 100, "low": 1}, 500, lambda batch: 1.0)
    places = [place for place, batch in enumerate(gang.order) if batch == "low"]
    assert len(places) >= 4 and max(b - a for a, b in pairwise(places)) <= 102


def test_one_that_comes_late_gets_its_part_and_nothing_of_what_has_been():
    gang = Gang()
    gang.serve({"first": 1}, 50, lambda batch: 1.0)
    gang.serve({"first": 1, "late": 1}, 40, lambda batch: 1.0)
    assert gang.order[50:].count("late") == pytest.approx(20, abs=1)
    assert gang.order[50:].count("first") == pytest.approx(20, abs=1)


def test_one_that_had_nothing_to_do_for_a_while_saves_nothing_up():
    gang = Gang()
    gang.serve({"a": 1, "b": 1}, 10, lambda batch: 1.0)
    gang.turns.rest("b")
    gang.serve({"a": 1}, 50, lambda batch: 1.0)
    gang.serve({"a": 1, "b": 1}, 20, lambda batch: 1.0)
    assert gang.order[-20:].count("b") == pytest.approx(10, abs=1)


def test_the_turn_is_one_batchs_until_it_asks_again_rests_or_leaves():
    turns = Turns(claim_s=40, clock=Clock())
    assert turns.ask("a", 1) and not turns.ask("b", 1) and not turns.ask("b", 1)
    assert (turns.holder, turns.num_batches) == ("a", 2)
    turns.rest("a")
    assert (turns.holder, turns.num_batches) == ("b", 1)
    turns.leave("b")
    assert (turns.holder, turns.num_batches) == (None, 0)


def test_one_that_is_silent_loses_its_turn_and_one_that_waits_in_silence_gets_none():
    clock = Clock()
    turns = Turns(claim_s=40, clock=clock)
    turns.ask("gone", 1)
    turns.ask("waits", 1)
    clock.now_s = 39
    assert turns.lapsed() is None
    clock.now_s = 41
    assert turns.lapsed() == "gone" and turns.holder == "gone"  # the ranks may be at its item yet
    assert turns.num_batches == 1
    turns.leave("gone")
    assert (turns.holder, turns.num_batches) == (None, 0)
    assert turns.ask("waits", 1)


def test_a_claim_that_is_renewed_lasts():
    clock = Clock()
    turns = Turns(claim_s=40, clock=clock)
    turns.ask("there", 1)
    for now_s in count(30, 30):
        clock.now_s = now_s
        assert turns.lapsed() is None
        turns.renew("there")
        if now_s > 300:
            break
