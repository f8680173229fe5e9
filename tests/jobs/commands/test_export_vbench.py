"""A batch becomes what VBench's evaluate reads: names, prompt lists, and nothing else in the folder."""

import json
import os
from pathlib import Path

import pytest

from jobs.__main__ import main
from jobs.commands.export_vbench import DIMENSIONS, run
from jobs.driver.batch_plan import make_plan
from jobs.errors import BadInput
from jobs.options.batch import RenderOptions, VBenchOptions
from jobs.store.ledger import Ledger
from jobs.store.mp4 import probe
from jobs.store.open import open_storage
from tests.jobs.models.test_facts import make_model
from tests.jobs.store.example import done_line, item, publish, settings


def finish(out: Path, id: str, prompt: str, seed: int, export_as: str | None = None) -> Path:
    """Put a video, as a batch publishes it, into the batch's directory."""
    video = item(id=id, prompt=prompt, seed=seed, export_as=export_as)
    publish(settings(out), video)
    return out / f"{video.name}.mp4"


def export(out: Path, to: Path) -> int:
    return run(VBenchOptions(out=str(out), to=to))


def names(to: Path) -> list[str]:
    return sorted(path.name for path in (to / "videos").iterdir())


def content(to: Path) -> dict[str, bytes]:
    return {path.relative_to(to).as_posix(): path.read_bytes() for path in to.rglob("*") if path.is_file()}


def test_videos_of_a_prompt_are_numbered_by_seed(tmp_path):
    last = finish(tmp_path / "out", "a", "A red ball, rolling.", 30)
    finish(tmp_path / "out", "b", "A red ball, rolling.", 4)
    finish(tmp_path / "out", "c", "a cat", 7)
    assert export(tmp_path / "out", tmp_path / "to") == 0
    assert names(tmp_path / "to") == ["A red ball, rolling.-0.mp4", "A red ball, rolling.-1.mp4", "a cat-0.mp4"]
    assert (tmp_path / "to" / "videos" / "A red ball, rolling.-1.mp4").samefile(last)
    assert probe(tmp_path / "to" / "videos" / "a cat-0.mp4").num_frames == 5


def test_images_are_refused(tmp_path):
    publish(settings(tmp_path / "out", medium="image", fps=None), item(num_frames=1))
    with pytest.raises(BadInput, match=r"VBench judges videos, and .* has images, too"):
        export(tmp_path / "out", tmp_path / "to")
    assert not (tmp_path / "to").exists()


def test_prompt_lists_are_what_vbench_reads(tmp_path):
    finish(tmp_path / "out", "a", "a cat", 1)
    finish(tmp_path / "out", "b", "a cat/a dog", 1)
    export(tmp_path / "out", tmp_path / "to")
    prompts = json.loads((tmp_path / "to" / "prompts.json").read_text())
    assert prompts == {"a cat-0.mp4": "a cat", "a cat_a dog-0.mp4": "a cat/a dog"}
    full_info = json.loads((tmp_path / "to" / "full_info.json").read_text())
    assert full_info == [{"prompt_en": "a cat", "dimension": DIMENSIONS}]
    record = json.loads((tmp_path / "to" / "batch.json").read_text())
    assert [(row["video"], row["seed"]) for row in record["videos"]] == [("a cat-0.mp4", 1), ("a cat_a dog-0.mp4", 1)]


@pytest.mark.parametrize(
    "prompt, name",
    [
        ("../../up", ".._.._up"),
        ("/etc/passwd", "_etc_passwd"),
        ("..", ".."),
        (".", "."),
        ("a\tb\nc", "a_b_c"),
        ("x" * 249, "x" * 249),
        ("x" * 250, "x" * 180),
        ("é" * 200, "é" * 124),
        ("a cat-3", "a cat-3"),
    ],
)
def test_every_prompt_becomes_a_name_below_the_directory(tmp_path, prompt, name):
    finish(tmp_path / "out", "a", prompt, 1)
    before = sorted(path for path in tmp_path.rglob("*"))
    assert export(tmp_path / "out", tmp_path / "to") == 0
    assert names(tmp_path / "to") == [f"{name}-0.mp4"]
    assert sorted(path for path in tmp_path.rglob("*") if not path.is_relative_to(tmp_path / "to")) == before
    assert json.loads((tmp_path / "to" / "prompts.json").read_text()) == {f"{name}-0.mp4": prompt}


def test_prompts_of_one_name_are_numbered_and_the_rest_is_exported(tmp_path, capsys):
    long = "a slow camera move over a harbour at dawn, " * 6
    prompts = {"a": f"{long}a man waves", "b": f"{long}a dog runs", "c": "a cat", "d": f"{long}a dog runs"}
    for seed, (id, prompt) in enumerate(prompts.items()):
        finish(tmp_path / "out", id, prompt, seed)
    assert export(tmp_path / "out", tmp_path / "to") == 3
    stem = long[:180]
    given = {"a cat-0.mp4": "c", f"{stem} (1)-0.mp4": "b", f"{stem} (1)-1.mp4": "d", f"{stem} (2)-0.mp4": "a"}
    assert names(tmp_path / "to") == sorted(given)
    listed = json.loads((tmp_path / "to" / "prompts.json").read_text())
    assert listed == {name: prompts[id] for name, id in given.items()}
    assert "2 prompts numbered, as others would have the same name" in capsys.readouterr().out
    before = content(tmp_path / "to")
    assert export(tmp_path / "out", tmp_path / "to") == 3
    assert content(tmp_path / "to") == before


def test_a_number_is_no_name_of_another_prompt_and_a_prompt_that_is_its_own_name_keeps_it(tmp_path):
    for id, prompt in {"a": "a/b", "b": "a_b", "c": "a_b (1)", "d": "a\tb"}.items():
        finish(tmp_path / "out", id, prompt, 1)
    assert export(tmp_path / "out", tmp_path / "to") == 3
    listed = json.loads((tmp_path / "to" / "prompts.json").read_text())
    assert listed == {"a_b-0.mp4": "a_b", "a_b (1)-0.mp4": "a_b (1)", "a_b (2)-0.mp4": "a\tb", "a_b (3)-0.mp4": "a/b"}


def test_a_line_may_name_its_export(tmp_path):
    """VBench looks for videos of its rewritten prompts under the prompts that they were made of."""
    finish(tmp_path / "out", "a", "a cat, drawn in great detail", 1, export_as="a cat")
    finish(tmp_path / "out", "b", "a cat, drawn in other words", 2, export_as="a cat")
    assert export(tmp_path / "out", tmp_path / "to") == 0
    listed = json.loads((tmp_path / "to" / "prompts.json").read_text())
    assert listed == {"a cat-0.mp4": "a cat, drawn in great detail", "a cat-1.mp4": "a cat, drawn in other words"}
    full_info = json.loads((tmp_path / "to" / "full_info.json").read_text())
    assert [row["prompt_en"] for row in full_info] == ["a cat"]


def test_a_name_that_is_given_after_rendering_counts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_model(tmp_path / "model", {"num_attention_heads": 4}, height=64, width=64, num_frames=5, fps=8, steps=12)
    render = ["render", "p.jsonl", "--out", "out", "--model", "model"]
    rows: list[dict[str, str]] = [{"prompt": "a/b"}, {"prompt": "a\tb"}]
    (tmp_path / "p.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    plan = make_plan(RenderOptions(prompts=tmp_path / "p.jsonl", out="out", model="model"))
    for video in plan.items:
        publish(plan.settings, video)
    assert main(render) == 0
    assert export(tmp_path / "out", tmp_path / "to") == 3
    rows = [row | {"export_as": f"name {number}"} for number, row in enumerate(rows)]
    (tmp_path / "p.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert main(render) == 0
    assert export(tmp_path / "out", tmp_path / "to") == 0
    assert names(tmp_path / "to") == ["name 0-0.mp4", "name 1-0.mp4"]
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")}
    assert main(render) == 0
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*")} == before


def test_rerun_gives_the_same_and_mends_what_is_missing(tmp_path):
    for seed in (1, 2):
        finish(tmp_path / "out", f"a{seed}", "a cat", seed)
    export(tmp_path / "out", tmp_path / "to")
    before = content(tmp_path / "to")
    (tmp_path / "to" / "videos" / "a cat-0.mp4").unlink()
    (tmp_path / "to" / "prompts.json").unlink()
    assert export(tmp_path / "out", tmp_path / "to") == 0
    assert content(tmp_path / "to") == before


def test_rerun_follows_the_batch(tmp_path):
    finish(tmp_path / "out", "a", "a cat", 5)
    gone = finish(tmp_path / "out", "b", "a dog", 5)
    export(tmp_path / "out", tmp_path / "to")
    earlier = finish(tmp_path / "out", "c", "a cat", 2)
    gone.with_suffix(".json").unlink()
    export(tmp_path / "out", tmp_path / "to")
    assert names(tmp_path / "to") == ["a cat-0.mp4", "a cat-1.mp4"]
    assert (tmp_path / "to" / "videos" / "a cat-0.mp4").samefile(earlier)


def test_video_that_is_missing_or_cut_short_is_left_out_and_makes_it_partial(tmp_path, capsys):
    finish(tmp_path / "out", "a", "a cat", 1)
    finish(tmp_path / "out", "b", "a cat", 2).unlink()
    cut = finish(tmp_path / "out", "c", "a cat", 3)
    cut.write_bytes(cut.read_bytes()[:-1])
    finish(tmp_path / "out", "d", "a cat", 4).with_suffix(".json").write_text("{")
    assert export(tmp_path / "out", tmp_path / "to") == 3
    assert names(tmp_path / "to") == ["a cat-0.mp4"]
    assert "3 videos missing or damaged, left out" in capsys.readouterr().out


def test_video_that_only_the_ledger_or_a_directory_tells_of_is_left_out_and_named(tmp_path, capsys):
    batch = tmp_path / "out"
    for number, id in enumerate("abcd"):
        finish(batch, id, "a cat", number)
    (batch / "videos" / "b-a-cat-s1.json").unlink()
    (batch / "videos" / "b-a-cat-s1.json").mkdir()
    (batch / "videos" / "c-a-cat-s2.json").unlink()
    (batch / "videos" / "c-a-cat-s2.json").symlink_to("c-a-cat-s2.json")
    ledger = Ledger(open_storage(batch))
    ledger.add("done", **done_line("c", name="videos/c-a-cat-s2"))
    ledger.flush()
    assert export(batch, tmp_path / "to") == 3
    assert names(tmp_path / "to") == ["a cat-0.mp4", "a cat-1.mp4"]
    told = capsys.readouterr().out
    assert "2 videos missing or damaged" in told and "(videos/b-a-cat-s1.mp4, videos/c-a-cat-s2.mp4)" in told


def test_batch_that_is_not_done_makes_it_partial(tmp_path, capsys):
    finish(tmp_path / "out", "a", "a cat", 1)
    ledger = Ledger(open_storage(tmp_path / "out"))
    ledger.add("begin", total=3)
    ledger.add("done", **done_line("a"))
    ledger.add("fail", id="b")
    ledger.flush()
    assert export(tmp_path / "out", tmp_path / "to") == 3
    assert names(tmp_path / "to") == ["a cat-0.mp4"]
    assert "the batch is not done: 1 video failed, 1 video waiting" in capsys.readouterr().out


@pytest.mark.parametrize("out", ["out", "nowhere"])
def test_batch_without_finished_videos_is_refused(tmp_path, out):
    (tmp_path / "out" / "videos").mkdir(parents=True)
    with pytest.raises(BadInput, match="has no finished videos"):
        export(tmp_path / out, tmp_path / "to")
    assert not (tmp_path / "to").exists()


def refused(tmp_path: Path, to: Path) -> str:
    before = content(tmp_path)
    with pytest.raises(BadInput) as caught:
        export(tmp_path / "out", to)
    assert content(tmp_path) == before
    return str(caught.value)


def test_directory_with_other_content_is_refused(tmp_path):
    finish(tmp_path / "out", "a", "a cat", 1)
    (tmp_path / "to").mkdir()
    (tmp_path / "to" / "thesis.txt").write_text("mine")
    assert "is not empty and holds no export" in refused(tmp_path, tmp_path / "to")
    assert "is not empty and holds no export" in refused(tmp_path, tmp_path / "out")
    assert "is not a directory" in refused(tmp_path, tmp_path / "to" / "thesis.txt")


def test_export_of_another_batch_or_with_other_files_is_refused(tmp_path):
    finish(tmp_path / "out", "a", "a cat", 1)
    finish(tmp_path / "other", "a", "a cat", 1)
    export(tmp_path / "other", tmp_path / "to")
    assert "holds an export of" in refused(tmp_path, tmp_path / "to")
    export(tmp_path / "out", tmp_path / "mine")
    (tmp_path / "mine" / "videos" / "scores.csv").write_text("1")
    assert "holds 'videos/scores.csv'" in refused(tmp_path, tmp_path / "mine")


def test_folder_that_leads_elsewhere_is_refused(tmp_path):
    finish(tmp_path / "out", "a", "a cat", 1)
    export(tmp_path / "out", tmp_path / "to")
    os.rename(tmp_path / "to" / "videos", tmp_path / "elsewhere")
    (tmp_path / "to" / "videos").symlink_to(tmp_path / "elsewhere")
    assert "holds no export" in refused(tmp_path, tmp_path / "to")


def test_batch_in_an_object_store_is_copied(tmp_path):
    import fsspec

    finish(tmp_path / "out", "a", "a cat", 1)
    fsspec.filesystem("memory").put(str(tmp_path / "out"), "/vbench-test", recursive=True)
    assert run(VBenchOptions(out="memory://vbench-test", to=tmp_path / "to")) == 0
    assert probe(tmp_path / "to" / "videos" / "a cat-0.mp4").num_frames == 5


def test_command_line_reaches_it(tmp_path, capsys):
    finish(tmp_path / "out", "a", "a cat", 1)
    assert main(["export", "vbench", str(tmp_path / "out"), "--to", str(tmp_path / "to")]) == 0
    assert "1 video of 1 prompt" in capsys.readouterr().out
