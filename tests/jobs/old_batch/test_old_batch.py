"""An output directory of the first version is shown, resumed, finished and retried by this one.

`out` is what that version left of `resca render prompts.jsonl --out out` with the options below, of the demo model: two
videos are finished, one was given up, and the driver was killed in the middle of the last, with a checkpoint of it.
Machines' names and paths are replaced, the page and the logs left out, and the checkpoint's tensors cut off.
"""

import json
import os
import shutil
from pathlib import Path

import pytest

from jobs.__main__ import main
from jobs.driver.batch_plan import make_plan
from jobs.options.batch import RenderOptions
from jobs.options.command_line import parse
from jobs.store.ledger import read_lines
from jobs.store.lock import Holder
from jobs.store.open import open_storage
from jobs.store.partial import process_space
from tests.jobs.survival.harness import check_no_debris, checksums

pytestmark = pytest.mark.timeout(300)
HERE = Path(__file__).parent
# What was resca then; now it is as its paper has it.
OPTIONS = ["--height", "64", "--width", "64", "--num-frames", "9", "--method", str(HERE / "resca.yaml")]
OPTIONS += ["--checkpoint-every", "1", "--save-latents", "--steps", "16"]
RENDER = [str(HERE / "prompts.jsonl"), "--out", "out", *OPTIONS]
DONE, OTHER = "done-a-small-blue-square-moving-left-on-a-s0", "other-a-small-green-triangle-moving-up-on-a-s11"


@pytest.fixture
def out(tmp_path, monkeypatch) -> Path:
    """A copy, as if the driver had been killed on this machine; files are as old as the ledger says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    out = tmp_path / "out"
    shutil.copytree(HERE / "out", out)
    (out / "attempts" / "left-ffac9568").mkdir(parents=True)
    holder = json.loads((out / "driver.lock").read_text())
    assert Holder(**holder).pid
    (out / "driver.lock").write_text(json.dumps(holder | {"space": process_space(), "pid": 2**22 + 1}))
    for line in read_lines(open_storage(out)):
        if line["e"] == "done":
            os.utime(out / f"{line['name']}.mp4", ns=(int(line["stamp"]), int(line["stamp"])))
    return out


def finished_files(out: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in (out / "videos").iterdir() if path.stem in (DONE, OTHER)]
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def test_status_shows_it(out, capsys):
    assert main(["status", "out"]) == 3
    told = capsys.readouterr().out
    assert "4 videos with demo, method resca: 2 done, 1 running, 0 retrying, 0 waiting, 1 failed" in told
    assert "was killed; run the same command again, or resca retry" in told
    assert "failed poison: IsADirectoryError" in told
    assert main(["status", "out", "--verify"]) == 3
    assert "damaged" not in capsys.readouterr().out


def test_what_is_finished_and_given_up_is_known(out, capsys):
    options = parse(["render", *RENDER])
    assert isinstance(options, RenderOptions)
    plan = make_plan(options)
    assert [item.id for item in plan.todo] == ["left"] and list(plan.known.finished) == ["done", "other"]
    assert not plan.known.unrecorded and list(plan.known.given_up) == ["poison"]
    assert main(["plan", *RENDER]) == 0
    told = capsys.readouterr().out
    assert ": 2 finished, 1 given up, 1 to render" in told
    assert "from 2 videos finished here" in told


def test_without_its_ledger_its_sidecars_tell(out):
    shutil.rmtree(out / "ledger")
    options = parse(["render", *RENDER])
    assert isinstance(options, RenderOptions)
    assert list(make_plan(options).known.finished) == ["done", "other"]


def test_retry_does_not_mix_what_a_method_was_then_with_what_it_is_now(out, capsys):
    before = finished_files(out)
    assert main(["retry", "out"]) == 2
    told = capsys.readouterr().err
    assert "was rendered with other settings (method." in told and 'feature "output" -> "stack"' in told
    assert finished_files(out) == before


@pytest.mark.slow
def test_render_finishes_what_was_interrupted_and_retry_what_was_given_up(out, capsys):
    before = finished_files(out)
    assert main(["render", *RENDER]) == 3
    assert set(checksums(out)) == {"done", "other", "left"}
    assert main(["retry", "out"]) == 0
    check_finished(out, before, capsys)


def check_finished(out: Path, before: dict[str, tuple[bytes, int]], capsys) -> None:
    """All four are there, the old ones untouched; no checkpoint was resumed; the page shows them."""
    assert len(before) == 6 and finished_files(out) == before
    assert set(checksums(out)) == {"done", "poison", "other", "left"}
    logs = "".join(path.read_text() for path in (out / "logs").glob("left.*.jsonl"))
    assert "The checkpoint" in logs and "is not used" in logs and '"resumed"' not in logs
    check_no_debris(out)
    assert not list((out / "checkpoints").rglob("*.safetensors"))
    [rows] = [path.read_text() for path in (out / "gallery").glob("0*.js")]
    assert rows.count('"done","resca"') == 4 and (out / "index.html").exists()
    capsys.readouterr()
    assert main(["status", "out"]) == 0
    assert "4 done, 0 running" in capsys.readouterr().out
