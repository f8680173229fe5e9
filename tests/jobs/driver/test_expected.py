"""What a batch will take, judged by what is finished."""

import pytest

from caching.recipe.recipe import RECIPES
from jobs.driver.expected import Expected
from jobs.driver.loops import Loops
from jobs.models.facts import read_facts
from jobs.predict.gpus import profile
from jobs.store.items import Seconds
from parallel.layout import Layout
from tests.jobs.models.test_facts import make_model
from tests.jobs.store.example import item


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


def expected(facts, method="full", layout=None, gpu="cpu"):
    return Expected(loops(facts, method), layout or Layout(), profile(gpu, "pcie", "ib400"))


def seconds(denoise: float) -> Seconds:
    return Seconds(encode=0.1, denoise=denoise, decode=0.3, write=0.1)


def test_work_grows_with_steps_and_faster_than_with_tokens(facts):
    work = loops(facts).work
    one, longer, larger = (item(**change) for change in ({}, {"steps": 8}, {"height": 32}))
    assert work(longer) == 2 * work(one)
    assert 2 * work(one) < work(larger) < 4 * work(one)


def test_videos_take_what_those_of_their_kind_took(facts):
    model = expected(facts)
    kind = model.kind_of(item())
    for took in (1.0, 2.0, 90.0):
        model.note(kind, seconds(took))
    assert model.num_finished == 3
    assert model.seconds(kind) == pytest.approx(2.5)


def test_a_kind_of_which_none_has_finished_is_as_much_slower_than_predicted_as_the_others(facts):
    model = expected(facts)
    one, longer = (model.kind_of(item(steps=steps)) for steps in (20, 40))
    model.note(one, seconds(10.0))
    assert model.seconds(longer) == pytest.approx(20.5, rel=0.02)
    for _ in range(40):  # the machine is taken by others, too, from now on
        model.note(one, seconds(20.0))
    assert model.seconds(longer) == pytest.approx(40.5, rel=0.02)


def test_what_other_layouts_took_tells_what_this_one_will(facts):
    model, one = expected(facts, layout=Layout(ulysses=2)), item(steps=50)
    kind = model.kind_of(one)
    model.note(kind, seconds(10.0), num_ranks=1)
    assert 5.0 < model.seconds(kind) < 10.0
    model.note(kind, seconds(9.0), num_ranks=2)
    assert model.seconds(kind) == pytest.approx(9.5)


def test_a_video_without_guidance_takes_half_of_the_passes(facts):
    model = expected(facts)
    guided, alone = (model.kind_of(item(steps=50, negative_prompt=text)) for text in ("grass", None))
    model.note(guided, seconds(10.0))
    assert model.seconds(guided) == pytest.approx(10.5)
    assert model.seconds(alone) == pytest.approx(5.5, rel=0.05)


def test_a_new_kind_is_as_much_slower_than_predicted_as_those_of_its_method(facts):
    """Whatever those of other methods are."""
    model = expected(facts)
    short, long = (
        {name: model.kind_of(item(method=name, steps=steps)) for name in ("full", "auto")} for steps in (20, 40)
    )
    model.note(short["auto"], seconds(1.0))
    model.note(short["full"], seconds(60.0))
    slower = {name: model.seconds(long[name]) / model._predict(long[name]) for name in long}
    assert slower["full"] != pytest.approx(slower["auto"], rel=0.1)
    assert slower["auto"] == pytest.approx(model.seconds(short["auto"]) / model._predict(short["auto"]))
