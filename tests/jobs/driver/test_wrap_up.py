"""What is left to do when every video is there, but the driver that rendered the last one was killed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.__main__ import main
from jobs.driver.batch_plan import make_plan
from jobs.driver.cancellation import ask
from jobs.driver.drive import recording
from jobs.driver.remembered import recall, remember
from jobs.driver.standing import standing_of
from jobs.options.batch import RenderOptions
from jobs.store.ledger import read_lines, read_state
from jobs.store.lock import DriverLock, LockLost
from jobs.store.open import open_storage
from tests.jobs.models.test_facts import make_model
from tests.jobs.store.example import publish
from tests.jobs.survival.harness import check_no_debris

RENDER = ["render", "p.txt", "--out", "out", "--model", "model"]


@pytest.fixture
def out(tmp_path, monkeypatch) -> Path:
    """Two videos that no ledger tells of, as if their driver had been killed at once."""
    monkeypatch.chdir(tmp_path)
    make_model(tmp_path / "model", {"num_attention_heads": 4}, height=64, width=64, num_frames=5, fps=8, steps=12)
    (tmp_path / "p.txt").write_text("red\ngreen\n")
    plan = make_plan(RenderOptions(prompts=tmp_path / "p.txt", out="out", model="model"))
    for item in plan.items:
        publish(plan.settings, item)
    return tmp_path / "out"


def leave_debris(out: Path) -> None:
    code = (
        "import os, sys; from jobs.store.lock import DriverLock; from jobs.store.open import open_storage\n"
        "DriverLock(open_storage(sys.argv[1])).__enter__(); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(out)], cwd=Path(__file__).parents[3], timeout=60)
    (out / "attempts" / "0001-torn").mkdir(parents=True)
    (out / "attempts" / "0001-torn" / "video.mp4").write_bytes(b"half of")


def test_videos_that_no_ledger_tells_of_are_told_by_the_next_driver(out, capsys):
    assert main(RENDER) == 0
    assert [line["id"] for line in read_lines(open_storage(out)) if line["e"] == "done"] == ["0000", "0001"]
    assert main(["status", "out"]) == 0
    told = capsys.readouterr().out
    assert "2 done, 0 running, 0 retrying, 0 waiting" in told and "the last one ended: done" in told
    assert '"running":false' in (out / "gallery" / "manifest.js").read_text()


def test_what_a_killed_driver_left_is_removed_and_then_nothing_is_written_any_more(out):
    leave_debris(out)
    assert main(RENDER) == 0
    check_no_debris(out)
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert main(RENDER) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


@pytest.mark.parametrize("with_ledger", [True, False])
def test_after_replacing_an_edited_prompt_nothing_is_left_of_the_old_one(out, tmp_path, with_ledger):
    """The driver was killed between publishing the new video and removing the old one."""
    assert main(RENDER) == 0
    (tmp_path / "p.txt").write_text("red\nblue\n")
    assert main(RENDER) == 2
    plan = make_plan(RenderOptions(prompts=tmp_path / "p.txt", out="out", model="model", replace=True))
    [blue] = plan.todo
    publish(plan.settings, blue)
    if not with_ledger:
        shutil.rmtree(out / "ledger")
    assert main(RENDER) == 0  # what is finished is no longer refused for what lies beside it, and nothing is removed
    assert len(list((out / "videos").iterdir())) == 9
    assert main([*RENDER, "--replace"]) == 0
    names = {f"{stem}.{kind}" for stem in ("0000-red-s0", "0001-blue-s1") for kind in ("mp4", "webp", "json")}
    assert {path.name for path in (out / "videos").iterdir()} == names
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    assert main([*RENDER, "--replace"]) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*")} == before


def test_a_later_limit_makes_a_batch_forget_nothing(out, tmp_path, capsys):
    assert main(RENDER) == 0
    leave_debris(out)
    assert main([*RENDER, "--limit", "1"]) == 0
    assert "1 video with model, method auto, 1 finished before" in capsys.readouterr().out
    assert [json.loads(line)["id"] for line in (out / "prompts.jsonl").read_text().splitlines()] == ["0000", "0001"]
    assert main(["status", "out"]) == 0
    assert "2 videos with model, method auto: 2 done, 0 running" in capsys.readouterr().out
    assert len(make_plan(recall(open_storage(out), tmp_path)).items) == 2
    assert (out / "gallery" / "0000.js").read_text().count('"done"') == 2


def test_retry_names_the_prompts_that_it_has_none_of_by_their_place(out, capsys):
    assert main(RENDER) == 0
    (out / "prompts.jsonl").write_text("")
    assert main(["retry", "out"]) == 2
    assert f"{out}/prompts.jsonl has no prompts" in capsys.readouterr().err


def test_a_limit_that_grows_remembers_what_it_has_come_to(out, tmp_path):
    def remembered(limit: int) -> list[str]:
        options = RenderOptions(prompts=tmp_path / "p.txt", out="new", model="model", limit=limit)
        remember(make_plan(options))
        return [json.loads(line)["id"] for line in (tmp_path / "new" / "prompts.jsonl").read_text().splitlines()]

    (tmp_path / "p.txt").write_text("red\ngreen\nblue\nblack\n")
    assert [len(remembered(limit)) for limit in (2, 1, 3, 2, 4, 1)] == [2, 2, 3, 3, 4, 4]


def test_a_request_to_stop_that_came_too_late_is_not_left_lying(out):
    plan = make_plan(RenderOptions(prompts=Path("p.txt"), out="out", model="model"))
    with DriverLock(plan.storage) as lock, recording(plan, lock, standing_of(plan)):
        ask(plan.storage, by="somebody")
    assert not (out / "cancel").exists()


def test_a_living_driver_is_left_alone(out, capsys):
    (out / "attempts" / "0001-its-own").mkdir(parents=True)
    with DriverLock(open_storage(out), lease_s=1):
        assert main(RENDER) == 0
    assert "left as it is: another driver works on" in capsys.readouterr().out
    assert (out / "attempts" / "0001-its-own").exists()
    assert read_state(open_storage(out)).begun is None


def test_a_driver_that_has_lost_its_batch_to_another_one_touches_nothing_any_more(out):
    plan = make_plan(RenderOptions(prompts=Path("p.txt"), out="out", model="model"))
    with DriverLock(plan.storage) as lock, pytest.raises(LockLost), recording(plan, lock, standing_of(plan)):
        (out / "attempts" / "0001-of-the-other").mkdir(parents=True)
        raise LockLost("another driver has taken over")
    assert (out / "attempts" / "0001-of-the-other").exists()
    assert "end" not in [line["e"] for line in read_lines(plan.storage)]


def test_retry_needs_no_recipe_file_but_its_own(out, tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("name: mine\nschedule: {kind: places, dense: [0, 4, 8, 11], steps: 12}\n")
    plan = make_plan(RenderOptions(prompts=tmp_path / "p.txt", out="other", model="model", method=str(recipe)))
    remember(plan)
    recipe.unlink()
    (tmp_path / "copy").mkdir()
    again = make_plan(recall(plan.storage, tmp_path / "copy"))
    before, after = ([each.settings.fingerprint(item) for item in each.items] for each in (plan, again))
    assert after == before


def test_methods_of_lines_are_told_and_remembered(out, tmp_path, capsys):
    (tmp_path / "p.jsonl").write_text('{"prompt": "red", "method": "full"}\n"green"\n')
    asked = ["p.jsonl", "--out", "other", "--model", "model"]
    assert main(["plan", *asked]) == 0
    told = capsys.readouterr().out
    assert "2 videos with model, methods full, auto: 0 finished" in told and told.count("64x64x5") == 2
    plan = make_plan(RenderOptions(prompts=tmp_path / "p.jsonl", out="other", model="model"))
    for item in plan.items:
        publish(plan.settings, item)
    assert main(["render", *asked]) == main(["status", "other"]) == 0
    told = capsys.readouterr().out
    assert "methods full, auto, 2 finished before" in told and "methods full, auto: 2 done" in told
    again = make_plan(recall(plan.storage, tmp_path))
    assert [again.method_of(item).name for item in again.items] == ["full", "auto"]
    assert list(again.known.finished) == ["0000", "0001"]


def test_variables_of_the_ranks_are_of_one_run_and_never_written_down(out, tmp_path, monkeypatch):
    prompts, seen = tmp_path / "p.txt", []
    plan = make_plan(RenderOptions(prompts=prompts, out="other", model="model", env=("TOKEN=secret",)))
    remember(plan)
    assert not [path for path in (tmp_path / "other").rglob("*") if path.is_file() and b"secret" in path.read_bytes()]
    monkeypatch.setattr("jobs.commands.retry.render", lambda options: seen.append(options.env) or 0)
    assert main(["retry", "other"]) == main(["retry", "other", "--env", "A=1"]) == 0
    assert seen == [(), ("A=1",)]


@pytest.mark.parametrize("text", ["", "[]", "{}", "[" * 100_000, '{"prompts": 1, "out": 2}', None])
def test_retry_of_a_batch_whose_options_are_damaged_is_one_sentence(out, capsys, text):
    (out / "batch.json").mkdir() if text is None else (out / "batch.json").write_text(text)
    assert main(["retry", "out"]) == 2
    told = capsys.readouterr().err
    assert "batch.json" in told and len(told.splitlines()) == 1


def test_retry_keeps_weights_as_they_were_asked_for(out, tmp_path):
    plan = make_plan(RenderOptions(prompts=tmp_path / "p.txt", out="other", model="model", weights="fp8"))
    remember(plan)
    (tmp_path / "copy").mkdir()
    assert make_plan(recall(plan.storage, tmp_path / "copy")).settings.weights == "fp8"


def test_retry_goes_on_replacing(out, tmp_path):
    plan = make_plan(RenderOptions(prompts=tmp_path / "p.txt", out="other", model="model", replace=True))
    remember(plan)
    assert recall(plan.storage, tmp_path).replace
