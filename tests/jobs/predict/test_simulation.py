"""A batch on a virtual clock keeps the promises of a real one, whatever happens to its gangs."""

from dataclasses import replace

import pytest

from cluster.failure import Budgets, FailureKind
from cluster.placement import GangSpec
from jobs.predict.capacity import nodes_of
from jobs.predict.places import Places
from jobs.predict.scenario import Scenario
from jobs.predict.simulation import simulate


def gangs_of(world_size: int, together: int) -> GangSpec:
    return GangSpec(world_size=world_size, together=together, num_gpus_per_rank=1, num_cpus_per_rank=0)


CALM = Scenario(
    spec=gangs_of(8, 8), gangs=4, nodes=nodes_of(32, 8), seconds=[100.0] * 40, load_s=60.0, spread=0.0
)  # fmt: skip
# Gangs of two nodes each, one node more than they need, and trouble of every kind.
ROUGH = Scenario(
    spec=gangs_of(16, 8),
    gangs=6,
    nodes=nodes_of(104, 8),
    seconds=[100.0 + number for number in range(200)],
    load_s=60.0,
    loss_hours=2.0,
    failure_rates={FailureKind.ITEM: 0.1, FailureKind.STORAGE: 0.1, FailureKind.INFRASTRUCTURE: 0.03},
    start_failures=0.2,
    slow_nodes=0.1,
)


def test_without_disturbance_it_is_arithmetic():
    tally = simulate(CALM)
    assert tally.seconds == pytest.approx(60 + 40 / 4 * 100)
    assert tally.busy_s == pytest.approx(40 * 100) and tally.wasted_s == 0
    assert tally.renderings == [1] * 40


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_lost_and_nothing_rendered_twice(seed):
    tally = simulate(replace(ROUGH, seed=seed, checkpoint_s=30.0 if seed % 2 else None))
    assert [outcome.item for outcome in tally.outcomes] == list(range(200))
    assert [outcome.error is None for outcome in tally.outcomes] == [times == 1 for times in tally.renderings]
    assert max(tally.renderings) == 1
    assert tally.node_losses and tally.gang_losses and tally.retries and tally.wasted_s
    failures = {outcome.failure for outcome in tally.outcomes} - {None}
    assert failures <= {FailureKind.ITEM, FailureKind.INFRASTRUCTURE, FailureKind.STORAGE}  # none for want of a gang


def test_an_item_that_always_fails_is_given_up_within_its_budget():
    tally = simulate(replace(CALM, failure_rates={FailureKind.ITEM: 1.0}, budgets=Budgets(item_failures=3)))
    assert {outcome.attempts for outcome in tally.outcomes} == {3} and tally.finished == 0


def test_a_gang_that_never_starts_ends_the_batch():
    tally = simulate(replace(CALM, start_failures=1.0))
    assert {outcome.failure for outcome in tally.outcomes} == {FailureKind.START}
    assert all(outcome.was_left for outcome in tally.outcomes)
    assert tally.gang_losses == 4 * CALM.budgets.starts


def test_costly_videos_come_first_so_that_none_is_left_for_the_end():
    seconds = [10.0] * 30 + [300.0]
    assert simulate(replace(CALM, seconds=seconds)).seconds == pytest.approx(60 + 300)


def test_losses_cost_time_and_checkpoints_give_some_of_it_back():
    long = replace(CALM, seconds=[3600.0] * 40, loss_hours=5.0)
    calm, lossy, kept = (
        simulate(each) for each in (replace(long, loss_hours=None), long, replace(long, checkpoint_s=60.0))
    )
    assert calm.seconds < kept.seconds < lossy.seconds
    assert kept.wasted_s < lossy.wasted_s / 5


def test_a_batch_without_losses_is_otherwise_the_same():
    calm, safe = simulate(replace(CALM, spread=0.1)), simulate(replace(CALM, spread=0.1, loss_hours=1e9))
    assert calm.seconds == safe.seconds and safe.node_losses == 0


def test_ten_thousand_videos_on_a_thousand_gpus_survive_their_nodes():
    """Of which one is lost in 500 node hours."""
    big = Scenario(spec=gangs_of(8, 8), gangs=128, nodes=nodes_of(1024, 8), seconds=[300.0] * 10_000, load_s=60.0)
    calm, lossy = simulate(big), simulate(replace(big, loss_hours=500.0))
    assert calm.renderings == lossy.renderings == [1] * 10_000
    assert lossy.node_losses > 0 and lossy.seconds / calm.seconds - 1 < 0.01


def test_places_are_those_that_placement_counts():
    spec, nodes = gangs_of(6, 2), nodes_of(21, 8)  # 4, 4 and 2 groups of 2
    places = Places(spec, nodes)
    taken = [places.take() for _ in range(4)]
    assert taken == [(0, 0, 0), (1, 1, 1), (2, 2, 0), None]
    places.lose(1)
    places.give_back(taken[1] or ())
    assert places.take() is None
    places.mend(1)
    assert places.take() == (1, 1, 1)
