"""What images can be asked for, and what cannot, before anything is loaded."""

import json
from dataclasses import replace

import pytest

from jobs.__main__ import main
from jobs.driver.batch_plan import make_plan
from jobs.driver.remembered import recall, remember
from jobs.options.batch import RenderOptions
from tests.jobs.tiny_images import save_tiny_image_model


@pytest.fixture(scope="module")
def flux(tmp_path_factory):
    return save_tiny_image_model(tmp_path_factory.mktemp("flux") / "model")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--num-frames", "1"], "makes images, each of one frame; leave out --num-frames"),
        (["--fps", "8"], "makes images, each of one frame; leave out --fps"),
        (["--height", "72"], "height and width must be multiples of 16 and num_frames 1"),
        (["--guidance-2", "3"], "has no second transformer to guide"),
        (["--method", "t-gate"], "t-gate caches cross-attention, which this model does not have"),
    ],
)
def test_what_an_image_cannot_have_is_refused_in_one_sentence(tmp_path, capsys, flux, options, why):
    (tmp_path / "prompts.txt").write_text("a cat\n")
    plan = ["plan", str(tmp_path / "prompts.txt"), "--out", str(tmp_path / "out"), "--model", str(flux), *options]
    assert main(plan) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert why in said and said.count("resca: ") == 1


@pytest.mark.parametrize("line", [{"num_frames": 5}, {"seconds": 2}])
def test_a_line_that_asks_for_a_length_is_refused(tmp_path, capsys, flux, line):
    fields = {"custom_id": "a", "body": {"prompt": "a cat", **line}}
    (tmp_path / "prompts.jsonl").write_text(json.dumps(fields))
    plan = ["plan", str(tmp_path / "prompts.jsonl"), "--out", str(tmp_path / "out"), "--model", str(flux)]
    assert main(plan) == 2
    assert "line 1: " in (said := " ".join(capsys.readouterr().err.split()))
    assert "num_frames 1" in said or "the model makes images, which take no seconds" in said


def test_several_images_of_a_prompt_have_numbers_and_seeds_of_their_own(tmp_path, flux):
    prompts, out = tmp_path / "prompts.jsonl", tmp_path / "out"
    prompts.write_text('{"prompt": "a cat", "id": "cat", "seed": 40}\n{"prompt": "grass"}\n')
    asked = RenderOptions(prompts=prompts, out=str(out), model=str(flux), images_per_prompt=3)
    plan = make_plan(asked)
    assert [(each.id, each.seed) for each in plan.items] == [
        *((f"cat-{copy}", 40 + copy) for copy in range(3)),
        *((f"0001-{copy}", 3 + copy) for copy in range(3)),
    ]
    assert [each.id for each in make_plan(replace(asked, limit=1)).items] == ["cat-0", "cat-1", "cat-2"]
    remember(plan)
    again = make_plan(recall(plan.storage, tmp_path))
    assert again.items == plan.items and again.settings == plan.settings


def test_several_images_of_a_prompt_are_refused_of_videos(tmp_path, capsys):
    (tmp_path / "prompts.txt").write_text("a red ball\n")
    plan = ["plan", str(tmp_path / "prompts.txt"), "--out", str(tmp_path / "out"), "--images-per-prompt", "2"]
    assert main(plan) == 2
    assert "model demo makes videos; leave out --images-per-prompt" in " ".join(capsys.readouterr().err.split())


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--num-frames", "5"], "num_frames 3; nearest: height 64, width 64, num_frames 3"),
        (["--ulysses", "2"], "attend in space and in time by turns, on one rank, not on 2; --cfg 2 gives each pass"),
        (["--method", "resca"], "method resca lets each token attend to all others, which"),
    ],
)
def test_what_latte_cannot_do_is_refused_in_one_sentence(tmp_path, capsys, options, why):
    model = save_tiny_image_model(tmp_path / "model", "latte")
    (tmp_path / "prompts.txt").write_text("a cat\n")
    assert main(["plan", str(tmp_path / "prompts.txt"), "--out", "out", "--model", str(model), *options]) == 2
    assert why in " ".join(capsys.readouterr().err.split())
