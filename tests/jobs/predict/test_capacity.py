"""The best splits of some GPUs: what fits, what is fastest, and what the command says of it."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from caching.recipe.recipe import RECIPES
from jobs.__main__ import main
from jobs.errors import BAD_INPUT, DONE
from jobs.predict.capacity import AIMS, Split, best, candidates, layouts, num_gangs, splits
from jobs.predict.gpus import profile
from jobs.predict.memory import GIB, Keeping, need_bytes
from jobs.predict.profile import Profile
from jobs.predict.shape import Video, shape_of, video_of
from parallel.layout import Layout

ROOT = Path(__file__).parents[3]
H100 = profile("h100", "nvlink", "ib400")
SHAPE = shape_of("hunyuanvideo")
ASK = ["plan", "--gpus"]


def video(method: str) -> Video:
    return video_of(SHAPE, RECIPES[method], height=720, width=1280, num_frames=129, steps=50)


def possible(of: Video, on: Profile, gpus: int) -> list[Split]:
    return splits(candidates(SHAPE, of, on, gpus), gpus, on.ranks_per_node)


@pytest.mark.parametrize("method", ["full", "auto", "resca"])
def test_more_gpus_are_never_slower(method):
    chosen = {aim: [best(possible(video(method), H100, gpus), aim) for gpus in (1, 2, 4, 8, 16, 64)] for aim in AIMS}
    videos_per_hour = [split.videos_per_hour for split in chosen["throughput"]]
    seconds = [split.parts.total for split in chosen["latency"]]
    assert videos_per_hour == sorted(videos_per_hour) and seconds == sorted(seconds, reverse=True)
    assert all(soonest.parts.total <= most.parts.total for most, soonest in zip(*chosen.values(), strict=True))


def test_gangs_stay_on_nodes_that_have_room_for_them():
    assert num_gangs(Layout(ulysses=3), 16, 8) == 4  # two on each node, and two GPUs left over
    assert num_gangs(Layout(ulysses=8, ring=2), 48, 8) == 3
    assert num_gangs(Layout(ulysses=8), 12, 8) == 1


def test_layouts_are_those_that_model_and_method_allow():
    found = list(layouts(SHAPE, video("resca"), 64, 8))
    assert max(each.world_size for each in found) == 8  # of 8 token ranges
    assert {each.ulysses for each in layouts(SHAPE, video("full"), 64, 8)} == {1, 2, 3, 4, 6, 8}
    assert all(each.cfg == 1 for each in found)
    wan = shape_of("wan")
    guided = video_of(wan, RECIPES["full"], height=720, width=1280, num_frames=81, steps=50)
    assert {each.cfg for each in layouts(wan, guided, 8, 8)} == {1, 2}


def test_what_does_not_fit_is_kept_otherwise_or_left_out():
    need = need_bytes("hunyuanvideo", video("full"), Layout(), Keeping())
    assert need is not None
    for memory, options in ((need, {""}), (need - 1, {"--offload"}), (30 * GIB, set()), (1, set())):
        small = replace(H100, memory_bytes=memory)
        assert {split.keeping.words for split in possible(video("full"), small, 1)} == options
    on_eight = possible(video("full"), replace(H100, memory_bytes=30 * GIB), 8)
    assert {split.keeping.words for split in on_eight} == {"--shard-weights", "--offload --shard-weights"}


def answer(tmp_path, *options: str) -> list[dict]:
    table = tmp_path / "rows.json"
    assert main([*ASK, *options, "--json", str(table)]) == DONE
    return json.loads(table.read_text())


def test_the_command_answers_with_a_table_and_a_page(tmp_path, capsys):
    report = tmp_path / "report"
    rows = answer(tmp_path, "1,8,1024", "--price", "2.5", "--report", str(report))
    told = capsys.readouterr().out
    assert "no figure of this was measured on GPUs" in told and "published and assumed rates" in told
    assert [(row["method"], row["gpus"]) for row in rows[::2]] == [
        (method, gpus) for method in ("full", "resca", "auto") for gpus in (1, 8, 1024)
    ]
    for row in rows:
        assert row["from"] < row["seconds"] < row["to"] and row["cost/video"] == pytest.approx(
            2.5 * row["GPU h/video"], abs=1e-3
        )
        assert sum(row["parts"].values()) == pytest.approx(row["seconds"], abs=0.1)
    page = (report / "index.html").read_text()
    assert "no figure of this was measured on GPUs" in page and "FlashAttention-3" in page
    assert json.loads((report / "rows.json").read_text()) == rows
    assert {"curves.png", "curves.svg", "rests-on.json"} <= {path.name for path in report.iterdir()}


def test_gpus_that_are_too_small_are_told_so(tmp_path):
    size = ("--height", "720", "--width", "1280", "--num-frames", "129", "--model", "wan2.2")
    rows = answer(tmp_path, "1", "--gpu", "l20", "--method", "full", *size[:-2])
    assert rows[0]["options"] == "--offload"
    [row] = answer(tmp_path, "1", "--gpu", "l20", "--method", "full", "--height", "1440", "--width", "2560",
                   "--num-frames", "129")  # fmt: skip
    assert row["options"].startswith("does not fit: at least ") and row["options"].endswith(" GiB of 44")


def test_a_batch_is_simulated_with_its_losses(tmp_path):
    rows = answer(tmp_path, "64", "--method", "auto", "--videos", "20000", "--loss-hours", "2")
    [batch] = [row for row in rows if row["for"] == "throughput"]
    assert batch["lost nodes"] > 0 and batch["overhead"] > 0
    assert batch["batch h"] == pytest.approx(20_000 / batch["videos/h"], rel=0.2)


@pytest.mark.parametrize(
    "options, what",
    [
        (["8x"], "--gpus takes numbers separated by commas, such as 1,8,64, not 8x"),
        (["0"], "--gpus must be at least 1, not 0"),
        (["8", "--model", "flux"], "flux is not predicted, as its decoding is not counted; known: hunyuanvideo"),
        (["8", "--model", "demo"], "how fast demo decodes is not known: give --calibrate"),
        (["8", "--method", "toca"], "method toca: what its sparse steps take is not predicted"),
        (["8", "--height", "721"], "height 721, width 640, num_frames 65 do not fit hunyuanvideo; nearest: height 720"),
        (["8", "--gpu", "l20", "--link", "nvlink"], "--link nvlink: an l20 has none"),
        (["8", "--price", "0"], "--price must be a number above 0"),
        (["8", "--loss-hours", "5"], "say by --videos of how many"),
    ],
)
def test_bad_questions(capsys, options, what):
    assert main([*ASK, *options]) == BAD_INPUT
    assert what in capsys.readouterr().err


def test_the_answer_needs_no_torch():
    code = (
        "import sys\nfrom jobs.__main__ import main\nassert main(['plan', '--gpus', '8,1024']) == 0\n"
        "assert not {'torch', 'ray', 'diffusers', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_plan_with_prompts_stays_as_it_is(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["plan", "missing.txt", "--out", "videos"]) == BAD_INPUT
    assert "missing.txt does not exist" in capsys.readouterr().err
