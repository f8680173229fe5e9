"""How long a running batch will still take, by what has finished of it."""

import heapq
from random import Random

import pytest

from caching.recipe.recipe import RECIPES
from cluster.events import GangEvent, ItemDone, ItemFailed, ItemRunning
from cluster.failure import FailureKind
from cluster.job import Job
from jobs.driver.eta import Eta
from jobs.driver.expected import Expected
from jobs.driver.loops import Loops
from jobs.models.facts import read_facts
from jobs.predict.gpus import profile
from jobs.predict.seconds import Setup, seconds_of
from jobs.predict.shape import shape_of_facts, video_of
from jobs.store.items import Seconds
from parallel.layout import Layout
from tests.jobs.store.example import item, settings, sidecar_of

CORE = profile("cpu", "pcie", "tcp100")
# The machine on which the batch runs: of other speed than the profile, in other ways for each part of a video.
MACHINE = CORE.with_quantities(
    "a machine",
    **{
        name: CORE.quantities[name].scaled(factor)
        for name, factor in {
            "linear_flops_per_s": 0.3,
            "attention_flops_per_s": 0.2,
            "decode_flops_per_s": 1e-4,
            "block_launch_s": 2.0,
            "step_s": 0.5,
        }.items()
    },
)


@pytest.fixture(scope="module")
def loops() -> Loops:
    facts = read_facts("demo")
    return Loops(facts=facts, method_of=lambda one: RECIPES[one.method or "full"], num_passes=lambda one: 1)


def mixed(number: int, random: Random):
    """Items of several sizes, steps and methods."""
    return [
        item(
            id=f"{index:04d}",
            method=random.choice(["full", "auto", "resca", "taylorseer", "toca"]),
            steps=random.choice([20, 50]),
            height=random.choice([96, 128]),
            width=128,
            num_frames=random.choice([25, 41]),
        )
        for index in range(number)
    ]


def sidecar(loops: Loops, one, pace: float):
    """What it says of a video on the machine."""
    shape = shape_of_facts(loops.facts, 1)
    size = {name: getattr(one, name) for name in ("height", "width", "num_frames", "steps")}
    setup = Setup(shape=shape, video=video_of(shape, loops.method_of(one), **size))
    parts = seconds_of(setup, MACHINE).times(pace)
    seconds = Seconds(encode=parts.encode, denoise=parts.loop, decode=parts.decode, write=parts.host)
    known = sidecar_of(settings("out", methods=RECIPES), one)
    return known.model_copy(update={"seconds": seconds})


@pytest.mark.parametrize("seed", range(4))
def test_a_mixed_batch_is_foreseen_from_a_tenth_of_it_on(loops, seed):
    random = Random(seed)
    items = sorted(mixed(60, random), key=lambda one: -loops.work(one))
    now, told, ends = 0.0, [], []
    eta = Eta(items, Expected(loops, Layout(), CORE), clock=lambda: now)
    running: list[tuple[float, int]] = []
    for gang in range(2):
        eta.note(GangEvent(kind="gang_ready", gang=gang, hosts=("here",)))
    waiting = list(enumerate(items))
    results = [sidecar(loops, one, random.lognormvariate(0, 0.1)) for one in items]
    while waiting or running:
        while waiting and len(running) < 2:
            index, one = waiting.pop(0)
            eta.note(ItemRunning(kind="item_started", gang=0, job=Job(index=index, item=one)))
            heapq.heappush(running, (now + results[index].seconds.total, index))
        now, index = heapq.heappop(running)
        eta.note(ItemDone(gang=0, job=Job(index=index, item=items[index]), result=results[index].model_dump()))
        ends.append(now)
        told.append(eta.left_s)
    for at, left in list(zip(ends, told, strict=True))[6:]:
        assert at + left == pytest.approx(now, rel=0.2)
    assert told[-1] == 0


def events(kind: str, one, **more):
    return ItemRunning(kind=kind, gang=0, job=Job(index=0, item=one), **more)


def test_nothing_is_known_before_the_first_video_has_ended(loops):
    eta = Eta([item()], Expected(loops, Layout(), CORE), clock=lambda: 0.0)
    eta.note(events("item_started", item()))
    eta.note(events("item_progress", item(), fraction=0.5))
    assert eta.left_s is None


def test_what_runs_counts_as_far_as_it_has_to_go_and_gangs_share_the_rest(loops):
    now, items = 0.0, [item(id=f"{index:04d}") for index in range(10)]
    eta = Eta(items, Expected(loops, Layout(), CORE), clock=lambda: now)
    eta.note(GangEvent(kind="gang_ready", gang=0, hosts=("here",)))
    eta.note(events("item_started", items[0]))
    now = 8.0
    result = sidecar(loops, items[0], 1.0).model_dump()
    eta.note(ItemDone(gang=0, job=Job(index=0, item=items[0]), result=result))
    assert eta.left_s == pytest.approx(9 * 8.0)
    eta.note(events("item_started", items[1]))
    now = 14.0
    eta.note(events("item_progress", items[1], fraction=0.75))
    assert eta.left_s == pytest.approx(8 * 8.0 + 2.0)
    eta.note(GangEvent(kind="gang_ready", gang=1, hosts=("here",)))
    assert eta.left_s == pytest.approx((8 * 8.0 + 2.0) / 2)
    eta.note(GangEvent(kind="gang_lost", gang=1))
    assert eta.left_s == pytest.approx(8 * 8.0 + 2.0)


def test_a_video_whose_steps_are_done_is_still_decoded(loops):
    now, items = 0.0, [item(id=f"{index:04d}") for index in range(2)]
    eta = Eta(items, Expected(loops, Layout(), CORE), clock=lambda: now)
    eta.note(events("item_started", items[0]))
    now = 8.0
    eta.note(ItemDone(gang=0, job=Job(index=0, item=items[0]), result=sidecar(loops, items[0], 1.0).model_dump()))
    eta.note(events("item_started", items[1]))
    now = 11.0
    eta.note(events("item_progress", items[1], fraction=1.0))
    assert eta.left_s == pytest.approx(5.0)
    now = 20.0
    assert eta.left_s == 0.0


def test_what_is_tried_again_waits_again_and_what_is_given_up_does_not(loops):
    now, items = 0.0, [item(id=f"{index:04d}") for index in range(4)]
    eta = Eta(items, Expected(loops, Layout(), CORE), clock=lambda: now)
    eta.note(events("item_started", items[0]))
    now = 1.0
    result = sidecar(loops, items[0], 1.0).model_dump()
    eta.note(ItemDone(gang=0, job=Job(index=0, item=items[0]), result=result))
    for kind, left in (("item_retried", 3.0), ("item_failed", 2.0)):
        eta.note(events("item_started", items[1]))
        eta.note(ItemFailed(kind=kind, gang=0, job=Job(index=1, item=items[1]), error="no", failure=FailureKind.ITEM))
        assert eta.left_s == pytest.approx(left)
    left_over = Job(index=2, item=items[2])
    eta.note(ItemFailed(kind="item_failed", job=left_over, error="no gang", failure=FailureKind.START))
    assert eta.left_s == pytest.approx(1.0)


def test_what_a_gang_counts_of_a_new_kind_is_expected_once_and_by_its_passes(loops):
    now = 0.0
    first, *others = [item(id=f"{index:04d}", method="auto", steps=50) for index in range(3)]
    proxied = [item(id=f"{index:04d}", method="resca", steps=50) for index in range(4, 6)]
    expected = Expected(loops, Layout(), CORE)
    eta = Eta([first, *others, *proxied], expected, clock=lambda: now)
    eta.note(GangEvent(kind="gang_ready", gang=0, hosts=("here",)))

    def run(one, counting_s):
        nonlocal now
        eta.note(events("item_started", one))
        result = sidecar(loops, one, 1.0)
        now += result.seconds.total + counting_s
        eta.note(ItemDone(gang=0, job=Job(index=0, item=one), result=result.model_dump()))

    def more_than_the_videos_take():
        kinds = map(expected.kind_of, [*others[1:], *proxied])
        return eta.left_s - sum(map(expected.seconds, kinds))

    run(first, counting_s=1.0)
    run(others[0], counting_s=0.0)
    passes = [expected.passes_counted(expected.kind_of(one)) for one in (first, proxied[0])]
    assert passes[0] == 1 < passes[1]
    assert more_than_the_videos_take() == pytest.approx(passes[1]), "once, of two that wait"
    eta.note(events("item_started", proxied[0]))
    assert more_than_the_videos_take() == pytest.approx(passes[1]), "and once, of one that runs and one that waits"
    eta.note(events("item_progress", proxied[0], fraction=1.0))
    now += 100.0
    waiting = map(expected.kind_of, [others[1], proxied[1]])
    assert eta.left_s == pytest.approx(sum(map(expected.seconds, waiting))), "it is over"
