"""What another run finds finished, given up or left, and what it then does and says by its exit code."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.events import Outcome
from cluster.failure import FailureKind
from jobs.__main__ import parse
from jobs.commands.render import exit_code
from jobs.driver.batch_plan import make_plan
from jobs.options.batch import RenderOptions
from jobs.options.shared import VideoOptions
from tests.jobs.conftest import complaint
from tests.jobs.store.example import finish

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "kinds, left, code",
    [
        ([None, None], False, 0),
        ([None, "item"], False, 3),
        ([None, "infrastructure"], False, 3),
        ([None, "infrastructure"], True, 33),
        ([None, "storage"], False, 33),
        (["start", "start"], True, 2),
    ],
)
def test_the_exit_code_tells_what_was_given_up_from_what_was_left(place, kinds, left, code):
    failures = [kind and FailureKind(kind) for kind in kinds]
    outcomes = [Outcome(item=None, attempts=1, failure=kind, was_left=left) for kind in failures]
    plan = make_plan(parse(["render", "good.txt", "--out", "out", "--model", "model"]))
    assert exit_code(outcomes, plan) == code


def test_what_a_rerun_would_render_outweighs_what_was_given_up(place):
    given_up = Outcome(item=None, attempts=2, failure=FailureKind.ITEM)
    left = Outcome(item=None, attempts=1, failure=FailureKind.INFRASTRUCTURE, was_left=True)
    plan = make_plan(parse(["render", "good.txt", "--out", "out", "--model", "model"]))
    assert exit_code([given_up, left], plan) == 33


def finish_everything(options: RenderOptions) -> None:
    """Put an intact video and its sidecar where each item of the batch belongs, and write it down."""
    plan = make_plan(options)
    for item in plan.items:
        finish(plan.settings, item)


def test_rerun_of_a_finished_batch_renders_nothing_and_starts_no_ray(place, capsys):
    arguments = ["render", "good.txt", "--out", "out", "--model", "model", "--json", "rows.json"]
    options = parse(arguments)
    assert isinstance(options, RenderOptions)
    finish_everything(options)
    before = {path: path.stat().st_mtime_ns for path in (place / "out").rglob("*")}
    code = "import sys; from jobs.__main__ import main; print(main(sys.argv[1:]), 'ray' in sys.modules)"
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "2 finished before" in done.stdout and "1.00x" in done.stdout and done.stdout.endswith("0 False\n")
    assert {path: path.stat().st_mtime_ns for path in (place / "out").rglob("*")} == before
    rows = json.loads((place / "rows.json").read_text())
    assert [row["status"] for row in rows] == ["finished before"] * 2


def test_plan_renders_only_what_is_not_finished_and_intact(place):
    options = parse(["render", "good.txt", "--out", "out", "--model", "model"])
    assert isinstance(options, RenderOptions)
    finish_everything(options)
    first, second = make_plan(options).items
    video, sidecar = place / "out" / f"{second.name}.mp4", place / "out" / first.sidecar
    video.write_bytes(video.read_bytes()[:-1])
    assert make_plan(options).todo == [second]
    sidecar.unlink()
    assert make_plan(options).todo == [first, second]


def test_other_settings_are_refused_by_name_unless_they_are_to_replace(place, capsys):
    options = parse(["render", "good.txt", "--out", "out", "--model", "model"])
    assert isinstance(options, RenderOptions)
    finish_everything(options)
    sentence = complaint(capsys, "good.txt", "--steps", "10", "--interval", "4")
    assert "0000-a-red-ball-s0.mp4" in sentence and "and so were 1 more" in sentence
    assert "steps 12 -> 10" in sentence and "method.schedule.every 6 -> 4" in sentence
    assert '(method.name "auto" -> "resca"), and so' in complaint(capsys, "good.txt", "--method", "resca")
    assert len(make_plan(replace(options, video=VideoOptions(steps=10), replace=True)).todo) == 2


def test_a_line_that_names_the_method_of_its_finished_video_leaves_it_finished(place, capsys):
    options = parse(["render", "good.txt", "--out", "out", "--model", "model", "--method", "full"])
    assert isinstance(options, RenderOptions)
    finish_everything(options)
    lines = ['{"prompt": "a red ball", "method": "full"}', '{"prompt": "a blue cube"}']
    (place / "p.jsonl").write_text("\n".join(lines))
    named = replace(options, prompts=Path("p.jsonl"))
    assert not make_plan(named).todo
    sentence = complaint(capsys, "p.jsonl", "--method", "auto")
    assert "videos/0001-a-blue-cube-s1.mp4" in sentence and '(method.name "full" -> "auto"); choose' in sentence


def test_limit_takes_the_first_prompts_and_leaves_their_seeds(place):
    options = parse(["render", "good.txt", "--out", "out", "--model", "model", "--limit", "1", "--seed", "5"])
    assert isinstance(options, RenderOptions)
    assert [(item.id, item.seed, item.steps) for item in make_plan(options).items] == [("0000", 5, 12)]
