"""How videos are guided: as asked of all, in a line, or by the model itself; refused where it would do nothing."""

import pytest

from jobs.__main__ import main
from jobs.driver.batch_plan import make_plan
from jobs.errors import BadInput
from jobs.models.facts import read_facts
from jobs.models.wan import NEGATIVE_PROMPT
from jobs.options.batch import RenderOptions
from jobs.options.command_line import parse
from jobs.request.guidance import guides_of, sampling_of
from tests.jobs.tiny_hunyuan_video_15 import save_tiny_hunyuan_video_15
from tests.jobs.tiny_model import save_tiny_pipeline
from tests.jobs.tiny_wan import save_tiny_wan

GUIDES = {"guidance", "guidance_2", "true_cfg_scale", "negative_prompt"}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {
        "demo": "demo",
        "embedded": save_tiny_pipeline(folder / "embedded"),
        "one": save_tiny_wan(folder / "one"),
        "two": save_tiny_wan(folder / "two", "2.2"),
        "ti2v": save_tiny_wan(folder / "ti2v", "ti2v"),
        "1.5": save_tiny_hunyuan_video_15(folder / "1.5"),
        "1.5-distilled": save_tiny_hunyuan_video_15(folder / "1.5-distilled", guidance_scale=1.0),
    }


def arguments(folder, model, text, *options, suffix="jsonl"):
    (folder / f"p.{suffix}").write_text(text)
    size = ("--height", "32", "--width", "48", "--num-frames", "9")
    return [str(folder / f"p.{suffix}"), "--out", str(folder / "out"), "--model", str(model), *size, *options]


def planned(folder, model, text='{"prompt": "a cat"}', *options, suffix="jsonl"):
    asked = parse(["render", *arguments(folder, model, text, *options, suffix=suffix)])
    assert isinstance(asked, RenderOptions)
    return make_plan(asked)


def deciding(plan, number=0):
    """What of guidance decides the pixels of an item."""
    asked = plan.settings.deciding(plan.items[number])
    return {name: value for name, value in asked.items() if name in GUIDES}


def test_each_model_has_its_own(tmp_path, models):
    assert deciding(planned(tmp_path, models["embedded"])) == {"guidance": 6.0}
    assert deciding(planned(tmp_path, models["one"])) == {"guidance": 5.0, "negative_prompt": NEGATIVE_PROMPT}
    assert deciding(planned(tmp_path, models["two"])) == {
        **{"guidance": 4.0, "guidance_2": 3.0},
        "negative_prompt": NEGATIVE_PROMPT,
    }


def test_each_pass_has_its_own_ranks_where_there_are_two(tmp_path, models):
    planned(tmp_path, models["one"], '{"prompt": "a cat"}', "--cfg", "2")
    with pytest.raises(BadInput, match="video 0001 is not guided by a second one"):
        planned(tmp_path, models["one"], '{"prompt": "a cat"}\n{"prompt": "grass", "guidance": 1}', "--cfg", "2")


def test_what_is_asked_for_decides(tmp_path, models):
    options = ("--guidance", "3.5", "--guidance-2", "2", "--negative-prompt", "blurry")
    plan = planned(tmp_path, models["two"], '{"prompt": "a cat"}', *options)
    assert deciding(plan) == {"guidance": 3.5, "guidance_2": 2.0, "negative_prompt": "blurry"}
    assert plan.num_passes(plan.items[0]) == 2
    plan = planned(tmp_path, models["embedded"], '{"prompt": "a cat"}', "--true-cfg-scale", "2")
    assert deciding(plan) == {"guidance": 6.0, "true_cfg_scale": 2.0}
    assert plan.facts.family.negative_prompt(sampling_of(plan.items[0], guides_of(plan.settings))) == ""


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        ("jsonl", '{"prompt": "a cat", "guidance": 2.5, "negative_prompt": "blurry"}\n{"prompt": "a dog"}\n'),
        ("csv", "prompt,guidance,Negative prompt\na cat,2.5,blurry\na dog,,\n"),
    ],
)
def test_a_line_may_ask_for_its_own(tmp_path, models, suffix, text):
    plan = planned(tmp_path, models["one"], text, suffix=suffix)
    assert deciding(plan) == {"guidance": 2.5, "negative_prompt": "blurry"}
    assert deciding(plan, 1) == {"guidance": 5.0, "negative_prompt": NEGATIVE_PROMPT}
    sampling = sampling_of(plan.items[0], guides_of(plan.settings))
    assert (sampling.guidance, sampling.negative_prompt, sampling.height) == (2.5, "blurry", 32)


def test_a_line_that_turns_guidance_off_takes_one_pass(tmp_path, models):
    plan = planned(tmp_path, models["one"], '{"prompt": "a cat", "guidance": 1}\n{"prompt": "a dog"}\n')
    assert [plan.num_passes(item) for item in plan.items] == [1, 2]


@pytest.mark.parametrize(
    ("model", "line", "options", "said"),
    [
        ("demo", {}, "--guidance 3", "model demo has no guidance scale; leave out --guidance"),
        (
            "demo",
            {"guidance": "3"},
            "",
            "line 1: model demo has no guidance scale; leave out its guidance",
        ),
        ("embedded", {}, "--guidance-2 3", "has no second transformer to guide; leave out --guidance-2"),
        ("embedded", {}, "--negative-prompt x", "does nothing unless true_cfg_scale is above 1"),
        ("embedded", {"negative_prompt": '"x"'}, "", "line 1: a negative prompt does nothing unless true_cfg_scale"),
        ("one", {}, "--guidance-2 3", "has no second transformer to guide; leave out --guidance-2"),
        ("one", {}, "--true-cfg-scale 3", "has no guidance beside a scale"),
        ("one", {}, "--guidance 1 --negative-prompt x", "does nothing unless guidance is above 1"),
        ("two", {}, "--guidance-2 nan", "--guidance-2 must be a number of at least 0, not nan"),
        ("one", {"guidance": "-1"}, "", "line 1: guidance -1"),
        ("one", {"guidance": '"x"'}, "", "line 1: guidance 'x'"),
    ],
)
def test_what_would_come_to_nothing_is_refused(tmp_path, models, capsys, model, line, options, said):
    fields = "".join(f', "{name}": {value}' for name, value in line.items())
    text = f'{{"prompt": "a cat"{fields}}}\n'
    assert main(["render", *arguments(tmp_path, models[model], text, *options.split())]) == 2
    assert said in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("model", ["two", "ti2v", "1.5"])
def test_plan_and_doctor_know_such_models(tmp_path, models, capsys, model):
    size = ("--height", "64", "--width", "96", "--nodes", "1xCPU=8,GPU=2", "--ulysses", "2")
    assert main(["plan", *arguments(tmp_path, models[model], '{"prompt": "a cat"}', *size)]) == 0
    told = capsys.readouterr().out
    assert "1 video with" in told and "64x96x9 needs 3." in told
    main(["doctor", "--model", str(models[model])])
    assert ": float32, " in " ".join(capsys.readouterr().out.split())


def test_a_model_has_the_defaults_of_its_kind(models):
    of_ti2v, of_15 = (read_facts(str(models[name])).defaults for name in ("ti2v", "1.5"))
    for defaults, size in ((of_ti2v, (704, 1280, 121, 24, 50, 5.0)), (of_15, (480, 848, 121, 24, 50, 6.0))):
        height, width, frames, fps = defaults.height, defaults.width, defaults.num_frames, defaults.fps
        assert (height, width, frames, fps, defaults.steps, defaults.guidance) == size


def test_one_that_is_distilled_for_one_pass_takes_no_guidance(tmp_path, models, capsys):
    plan = planned(tmp_path, models["1.5"])
    assert (deciding(plan), plan.num_passes(plan.items[0])) == ({"guidance": 6.0}, 2)
    plan = planned(tmp_path, models["1.5-distilled"])
    assert (deciding(plan), plan.num_passes(plan.items[0])) == ({"guidance": 1.0}, 1)
    for option, said in (
        ("--guidance", "no guidance scale"),
        ("--negative-prompt", "no guidance by a negative prompt"),
    ):
        assert main(["render", *arguments(tmp_path, models["1.5-distilled"], '{"prompt": "a"}', option, "3")]) == 2
        assert said in " ".join(capsys.readouterr().err.split())
