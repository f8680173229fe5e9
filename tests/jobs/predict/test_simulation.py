"""A batch on a virtual clock keeps the promises of a real one, whatever happens to its gangs."""

from dataclasses import replace
from random import Random

import pytest

from cluster.failure import Budgets, FailureKind
from cluster.placement import GangSpec
from jobs.predict.capacity import nodes_of
from jobs.predict.places import Places
from jobs.predict.scenario import Scenario, Strike
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


ONE = replace(CALM, gangs=1, nodes=nodes_of(8, 8), seconds=[100.0] * 3)  # 60 s of loading, then 3 videos
STRUCK_S = 60 + 150  # in the middle of the second


@pytest.mark.parametrize(
    ("strike", "seconds"),
    [
        # What was done of the second is lost; noticed, a wait of a second, loading, and two videos.
        (Strike(at_s=STRUCK_S, what="rank", notice_s=9), STRUCK_S + 9 + 1 + 60 + 200),
        (Strike(at_s=STRUCK_S, what="rank", notice_s=9, notice_at_start_s=50), STRUCK_S + 9 + 1 + 60 + 200),
        (Strike(at_s=30, what="rank", notice_s=9, notice_at_start_s=50), 30 + 50 + 1 + 60 + 300),
        # Another node is there only later.
        (Strike(at_s=STRUCK_S, what="node", notice_s=3, away_s=90), STRUCK_S + 90 + 60 + 200),
        # Another driver waits for nothing; it has no failure to count.
        (Strike(at_s=STRUCK_S, what="driver", away_s=7), STRUCK_S + 7 + 60 + 200),
    ],
)
def test_a_loss_whose_time_is_known_is_arithmetic(strike, seconds):
    tally = simulate(replace(ONE, strikes=[strike]))
    assert tally.seconds == pytest.approx(seconds) and tally.renderings == [1, 1, 1]
    assert tally.gang_losses == (strike.what != "driver")


def test_of_two_losses_the_one_that_is_noticed_first_counts():
    slow, quick = (Strike(at_s=at_s, what="rank", notice_s=notice_s) for at_s, notice_s in ((200, 60), (210, 1)))
    for strikes in ([slow, quick], [quick, replace(slow, at_s=210.5)]):
        tally = simulate(replace(ONE, strikes=strikes))
        assert tally.seconds == pytest.approx(211 + 1 + 60 + 200) and tally.gang_losses == 1


def test_what_was_done_after_a_loss_is_not_kept():
    """Checkpoints every 30 s, and a loss after 50 s of a video that is noticed 60 s later."""
    strike = Strike(at_s=60 + 50, what="rank", notice_s=60)
    tally = simulate(replace(ONE, strikes=[strike], checkpoint_s=30.0))
    assert tally.wasted_s == pytest.approx(20)
    assert tally.seconds == pytest.approx(110 + 60 + 1 + 60 + 70 + 200)


def test_gangs_that_share_cores_take_turns_and_leave_them_to_each_other():
    shared = simulate(replace(CALM, cores=2))
    assert shared.seconds == pytest.approx(2 * simulate(CALM).seconds)
    # With the driver gone nobody works; with one of two gangs away the other one has the core.
    two = replace(CALM, gangs=2, seconds=[100.0] * 4, cores=1)
    lost = simulate(replace(two, strikes=[Strike(at_s=170, what="rank")]))
    assert simulate(two).seconds == pytest.approx(120 + 400)
    assert lost.seconds == pytest.approx(120 + 400 + 25 + 60)  # what was done of a video, and another load


@pytest.mark.parametrize("seed", range(10))
def test_known_losses_of_all_kinds_lose_nothing(seed):
    luck = Random(seed)
    strikes = [
        Strike(
            at_s=at_s,
            what=luck.choice(["rank", "node", "driver"]),
            node=luck.randrange(13),
            notice_s=luck.uniform(0, 60),
            notice_at_start_s=90.0,
            away_s=luck.uniform(0, 300),
        )
        for at_s in range(0, 6000, 100)
    ]
    rough = replace(ROUGH, strikes=strikes, cores=3, seed=seed, checkpoint_s=20.0, budgets=Budgets(gang_losses=1000))
    tally = simulate(rough)
    assert [outcome.error is None for outcome in tally.outcomes] == [times == 1 for times in tally.renderings]
    assert max(tally.renderings) == 1 and len(tally.outcomes) == 200 and tally.wasted_s >= 0


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
