"""`resca tune`, for real, on a tiny pipeline."""

import json

import pytest

from caching.recipe.schedule import Places
from jobs.__main__ import main
from jobs.measure.tune.rollout import Rollouts
from jobs.options.shared import MethodOptions
from jobs.rank.renderer import Renderer
from jobs.request.recipes import read_tuned, resolve_method
from tests.jobs import tiny_wan
from tests.jobs.tiny_model import SIZE, save_tiny_pipeline
from tests.jobs.tiny_wan import save_tiny_wan

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


def test_what_was_stopped_goes_on_where_it_was(tiny_model, prompts, tmp_path, capsys, monkeypatch):
    plan, whole = tmp_path / "plan.yaml", tmp_path / "whole.yaml"
    assert tune(prompts, tiny_model, "--budget-dense", 3, "--out", whole) == 0
    left, fitted = [4], Rollouts.fit

    def fit(*args, **named):
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return fitted(*args, **named)

    monkeypatch.setattr(Rollouts, "fit", fit)
    assert tune(prompts, tiny_model, "--budget-dense", 3, "--out", plan) == 130
    assert f"run it again to go on from what {plan}.work keeps" in capsys.readouterr().out.replace("\n", " ")
    kept = list((tmp_path / "plan.yaml.work").iterdir())
    assert len(kept) > 4 and not plan.exists()
    monkeypatch.undo()
    asked, velocity = [], Renderer.velocity
    monkeypatch.setattr(Renderer, "trajectory", None)
    monkeypatch.setattr(Renderer, "velocity", lambda *args: asked.append(1) or velocity(*args))
    capsys.readouterr()
    assert tune(prompts, tiny_model, "--budget-dense", 3, "--out", plan) == 0
    assert "has 4 samplings of an earlier run" in capsys.readouterr().out.replace("\n", " ")
    assert plan.read_text().splitlines()[1:] == whole.read_text().splitlines()[1:]
    assert len(asked) > 2 and not (tmp_path / "plan.yaml.work").exists()


def test_a_plan_is_checked_on_other_prompts(tiny_model, prompts, tmp_path, capsys):
    plan, checked = tmp_path / "mine.yaml", tmp_path / "checked.yaml"
    assert tune(prompts, tiny_model, "--budget-dense", 3, "--search", "even", "--out", plan) == 0
    size = [str(word) for name, value in SIZE.items() for word in (f"--{name.replace('_', '-')}", value)]
    others = tmp_path / "others.txt"
    others.write_text("grass walks\na\non a cat\n")
    arguments = ["tune", "--check", str(plan), "--model", str(tiny_model), "--steps", str(STEPS), *size]
    capsys.readouterr()
    assert main([*arguments, "--prompts", str(others), "--out", str(checked)]) == 0
    before, after = read_tuned(plan), read_tuned(checked)
    assert before and after and (before.promise.prompts, after.promise.prompts) == (2, 3)
    told = capsys.readouterr().out.replace("\n", " ")
    assert (
        f"mine: {after.promise} auto, untuned, with as many dense steps: {after.auto} promised: {before.promise}"
        in told
    )
    assert [line for line in checked.read_text().splitlines() if "weights" in line or "dense:" in line]
    assert resolve_method("auto", MethodOptions(plan=checked)) == resolve_method("auto", MethodOptions(plan=plan))

    assert main([*arguments, "--prompts", str(prompts), "--num", "2"]) == 2
    assert "--check fits nothing" in capsys.readouterr().err
    assert main([*arguments, "--prompts", str(others), "--steps", str(STEPS + 1)]) == 2
    assert f"made for steps {STEPS}, not {STEPS + 1}" in capsys.readouterr().err


def test_two_transformers_that_take_turns(prompts, tmp_path, capsys):
    model, plan = save_tiny_wan(tmp_path / "wan", "2.2"), tmp_path / "mine.yaml"
    size = [str(word) for name, value in tiny_wan.SIZE.items() for word in (f"--{name.replace('_', '-')}", value)]
    common = ["--model", str(model), "--prompts", str(prompts), "--steps", str(STEPS), *size]
    fitting = ["tune", *common, "--num", "2", "--budget-dense", "4", "--out", str(plan)]
    assert main([*fitting, "--search", "l2p"]) == 2
    assert "is for one transformer" in capsys.readouterr().err
    assert main(fitting) == 0
    method, tuned = resolve_method("auto", MethodOptions(plan=plan)), read_tuned(plan)
    assert tuned and (tuned.transformers, tuned.shift) == (2, 3.0)
    assert tuned.promise.mean_db >= tuned.auto.mean_db
    assert len(method.schedule.dense) == 4

    table = tmp_path / "rows.json"
    assert main(["benchmark", "--methods", f"full,{plan}", *common, "--num", "1", "--json", str(table)]) == 0
    assert json.loads(table.read_text())[1]["dense_steps"] == 4  # and no further one where the second takes over
    shifted = json.loads((model / "scheduler/scheduler_config.json").read_text()) | {"flow_shift": 7.0}
    (model / "scheduler/scheduler_config.json").write_text(json.dumps(shifted))
    capsys.readouterr()
    assert main(["plan", str(prompts), *common[:2], *common[4:], "--method", str(plan), "--out", "out"]) == 2
    assert "made for shift 3.0, not 7.0" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("on", [["--gangs", "2"], ["--ulysses", "2"]], ids=" ".join)
def test_gangs_find_what_one_process_does(tiny_model, prompts, tmp_path, on):
    plans = [tmp_path / "alone.yaml", tmp_path / "gangs.yaml"]
    assert tune(prompts, tiny_model, "--budget-dense", 3, "--search", "l2p", "--out", plans[0]) == 0
    assert tune(prompts, tiny_model, "--budget-dense", 3, "--search", "l2p", "--out", plans[1], *on) == 0
    alone, gangs = (resolve_method("auto", MethodOptions(plan=plan)) for plan in plans)
    assert alone.schedule == gangs.schedule
    for mine, others in zip(alone.predictor.weights, gangs.predictor.weights, strict=True):
        assert mine == pytest.approx(others, abs=1e-3)
    told = [read_tuned(plan) for plan in plans]
    assert told[0].promise.mean_db == pytest.approx(told[1].promise.mean_db, abs=0.05)


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
