"""`resca tune`, for real, on a tiny pipeline."""

import json

import pytest

from caching.recipe.schedule import Places
from jobs.__main__ import main
from jobs.options.shared import MethodOptions
from jobs.request.recipes import read_tuned, resolve_method
from tests.jobs.tiny_model import SIZE, save_tiny_pipeline

pytestmark = pytest.mark.timeout(300)
STEPS = 8


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    return save_tiny_pipeline(tmp_path_factory.mktemp("model"))


@pytest.fixture
def prompts(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("a cat walks on grass\ngrass\na cat\nwalks\n")
    return file


def tune(prompts, model, *options):
    size = [str(word) for name, value in SIZE.items() for word in (f"--{name.replace('_', '-')}", value)]
    common = ["--prompts", str(prompts), "--model", str(model), "--steps", str(STEPS), "--num", "2", *size]
    return main(["tune", *common, *map(str, options)])


def test_a_budget_is_spent_on_better_places_than_even_ones(tiny_model, prompts, tmp_path):
    plan = tmp_path / "plan.yaml"
    assert tune(prompts, tiny_model, "--budget-dense", 3, "--out", plan) == 0
    method = resolve_method("auto", MethodOptions(plan=plan))
    assert isinstance(method.schedule, Places)
    assert (len(method.schedule.dense), method.schedule.steps) == (3, STEPS)
    assert plan.read_text().startswith("# tuned on 2 prompts")
    tuned = read_tuned(plan)
    assert tuned and (tuned.calibrated_on, tuned.promise.prompts, tuned.steps) == (2, 2, STEPS)
    assert tuned.promise.worst_db >= tuned.auto.worst_db and tuned.promise.mean_db >= tuned.auto.mean_db

    table = tmp_path / "rows.json"
    size = [str(word) for name, value in SIZE.items() for word in (f"--{name.replace('_', '-')}", value)]
    arguments = ["--model", str(tiny_model), "--prompts", str(prompts), "--num", "2", "--steps", str(STEPS), *size]
    assert main(["benchmark", "--methods", "full,auto", "--plan", str(plan), *arguments, "--json", str(table)]) == 0
    full, auto = json.loads(table.read_text())
    assert (full["dense_steps"], auto["dense_steps"]) == (STEPS, 3)
    assert auto["psnr_db"] > 10


def test_a_target_is_reached(tiny_model, prompts, tmp_path, capsys):
    plan = tmp_path / "plan.yaml"
    assert tune(prompts, tiny_model, "--target", "psnr=35", "--out", plan) == 0
    dense, tuned = resolve_method("auto", MethodOptions(plan=plan)).schedule.dense, read_tuned(plan)
    assert tuned and (tuned.promise.mean_db >= 35 or len(dense) == STEPS)
    told = capsys.readouterr().out.replace("\n", " ")
    assert f"{len(dense)} dense steps of {STEPS}: {tuned.promise}" in told
    assert "2 prompts to fit to and 2 held out: 32 dense steps of full sampling" in told


def test_a_plan_is_not_rendered_with_other_steps(tiny_model, prompts, tmp_path, capsys):
    plan = tmp_path / "plan.yaml"
    assert tune(prompts, tiny_model, "--budget-dense", 2, "--out", plan) == 0
    size = [str(word) for name, value in SIZE.items() for word in (f"--{name.replace('_', '-')}", value)]
    batch = [str(prompts), "--model", str(tiny_model), "--out", str(tmp_path / "out"), "--plan", str(plan)]
    batch += ["--method", "auto"]
    capsys.readouterr()
    assert main(["plan", *batch, *size, "--steps", str(STEPS + 1)]) == 2
    assert f"chosen for {STEPS} steps, not {STEPS + 1}" in capsys.readouterr().err
    assert main(["plan", *batch, *size, "--steps", str(STEPS), "--height", "48"]) == 0
    assert "what it promises was not tried there" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ("", "give either --target"),
        ("--target psnr=40 --budget-dense 3", "give either --target"),
        ("--target lpips=1", "--target must be psnr=DECIBELS"),
        ("--budget-dense 1", "at least 2"),
        ("--budget-dense 99", "more than the 8 steps"),
    ],
)
def test_bad_input_is_one_sentence(tiny_model, prompts, options, complaint, capsys):
    assert tune(prompts, tiny_model, *options.split()) == 2
    assert complaint in capsys.readouterr().err


def test_another_model_needs_prompts(tiny_model, capsys):
    assert main(["tune", "--model", str(tiny_model), "--budget-dense", "3"]) == 2
    assert "give --prompts FILE" in capsys.readouterr().err
