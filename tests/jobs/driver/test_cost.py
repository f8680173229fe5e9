"""What a batch will take, judged by what is finished."""

from dataclasses import replace

import pytest

from caching.recipe.recipe import RECIPES
from jobs.driver.cost import Loops, calibrate, estimate
from jobs.models.facts import read_facts
from jobs.store.known import Done
from tests.jobs.models.test_facts import make_model
from tests.jobs.store.example import item, settings, sidecar_of


@pytest.fixture
def facts(tmp_path):
    return read_facts(str(make_model(tmp_path / "model", {"num_attention_heads": 2, "attention_head_dim": 8})))


def loops(facts, method="full"):
    """Of items that are guided by a second pass where they have a negative prompt."""
    return Loops(
        facts=facts,
        method_of=lambda item: RECIPES[item.method or method],
        num_passes=lambda item: 2 if item.negative_prompt else 1,
    )


def done(one, denoise_s: float, ranks: int = 1) -> Done:
    """16x16 pixels of 5 frames: 0.3 s of decoding and 0.1 s of writing; 0.1 s of encoding."""
    known = Done.of_sidecar(sidecar_of(settings("out", methods=RECIPES), one), one.name)
    return replace(known, seconds={**known.seconds, "denoise": denoise_s}, world_size=ranks)


def test_work_grows_with_steps_and_faster_than_with_tokens(facts):
    work = loops(facts).work
    one, longer, larger = (item(**change) for change in ({}, {"steps": 8}, {"height": 32}))
    assert work(longer) == 2 * work(one)
    assert 2 * work(one) < work(larger) < 4 * work(one)


def test_what_is_finished_says_what_the_rest_takes(facts):
    items = [item(id=name) for name in "abcd"]
    finished = {one.id: done(one, seconds) for one, seconds in zip(items[:3], (1.0, 2.0, 90.0), strict=True)}
    model = calibrate(loops(facts), items, finished, on_gpus=False)
    assert model is not None and model.num_videos == 3
    assert model.seconds(items[3], 1) == pytest.approx(0.1 + 2.0 + 0.4)
    assert model.seconds(items[3], 2) == pytest.approx(0.1 + (2.0 + 0.4) / 2)
    left = estimate(items, model, num_ranks=2, num_gangs=3)
    assert left.gang_s == pytest.approx(4 * 1.3)
    assert left.wall_s == pytest.approx(4 * 1.3 / 3)
    assert left.gpu_hours == pytest.approx(4 * 1.3 * 2 / 3600)
    assert estimate(items, model, num_ranks=2, num_gangs=100).wall_s == pytest.approx(1.3)


def test_ranks_that_shared_a_video_count_for_what_they_did(facts):
    one = item()
    model = calibrate(loops(facts), [one], {one.id: done(one, 1.0, ranks=4)}, on_gpus=False)
    assert model is not None and model.seconds(one, 1) == pytest.approx(0.1 + 4 * (1.0 + 0.4))


def test_nothing_finished_says_nothing(facts):
    assert calibrate(loops(facts), [item()], {}, on_gpus=False) is None


def test_on_gpus_passes_of_proxies_take_as_long_on_any_number_of_ranks(facts):
    one = item(steps=50)
    passes = 36 * facts.blocks * 0.04 / 60
    for method, on_gpus, fixed in (("resca", True, passes), ("resca", False, 0.0), ("auto", True, 0.0)):
        finished = {one.id: done(one, 10.0, ranks=2)}
        model = calibrate(loops(facts, method), [one], finished, on_gpus=on_gpus)
        assert model is not None
        for ranks in (2, 8):
            shared = (2 * (10.0 - fixed) + 2 * 0.4) / ranks
            assert model.seconds(one, ranks) == pytest.approx(0.1 + fixed + shared)


def test_passes_that_were_faster_than_expected_are_half_of_what_was_seen(facts):
    one = item(steps=50)
    model = calibrate(loops(facts, "resca"), [one], {one.id: done(one, 0.1)}, on_gpus=True)
    assert model is not None and model.seconds(one, 1) == pytest.approx(0.1 + 0.1 + 0.4)
    assert model.seconds(one, 1000) == pytest.approx(0.1 + 0.05, rel=0.01)


def test_each_method_takes_what_its_own_videos_took_and_a_new_one_what_all_did_for_their_dense_steps(facts):
    full, other, auto, new = (
        item(id=str(n), steps=50, method=name) for n, name in enumerate((*["full"] * 2, "auto", "fora"))
    )
    finished = {full.id: done(full, 10.0), auto.id: done(auto, 3.6)}
    model = calibrate(loops(facts), [full, other, auto, new], finished, on_gpus=False)
    assert model is not None
    assert model.seconds(other, 1) == pytest.approx(0.1 + 10.0 + 0.4)
    assert model.seconds(auto, 1) == pytest.approx(0.1 + 3.6 + 0.4)
    a_dense_step = (10.0 / 50 + 3.6 / 9) / 2
    assert model.seconds(new, 1) == pytest.approx(0.1 + 9 * a_dense_step + 0.4)


@pytest.mark.parametrize("on_gpus", [True, False])
def test_a_video_without_guidance_takes_half_of_the_passes(facts, on_gpus):
    guided, alone = item(id="a", steps=50, negative_prompt="grass"), item(id="b", steps=50)
    model = calibrate(loops(facts, "resca"), [guided, alone], {"a": done(guided, 10.0)}, on_gpus=on_gpus)
    assert model is not None and model.seconds(guided, 1) == pytest.approx(0.1 + 10.0 + 0.4)
    assert model.seconds(alone, 1) == pytest.approx(0.1 + 5.0 + 0.4)
