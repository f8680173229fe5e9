"""A batch of images becomes what GenEval, ImageReward and FID read: names, lists of prompts, and nothing else."""

import json
import re
from pathlib import Path

import pytest

from jobs.__main__ import main
from jobs.store.ledger import Ledger
from jobs.store.open import open_storage
from jobs.store.png import read_facts
from tests.jobs.store.example import finish, item, settings

PROMPTS = ("a cat", "a dog/a hen")
METADATA = [
    {"tag": "single_object", "include": [{"class": "cow", "count": 1}], "prompt": "a cow"},
    {"tag": "single_object", "include": [{"class": "cat", "count": 1}], "prompt": "a cat"},
]


@pytest.fixture
def out(tmp_path) -> Path:
    """Three images of two prompts, the second prompt's first by its id."""
    batch = settings(tmp_path / "out", medium="image", fps=None)
    for name, prompt, seed in (("b-0", PROMPTS[0], 7), ("b-1", PROMPTS[0], 8), ("a", PROMPTS[1], 9)):
        finish(batch, item(id=name, prompt=prompt, seed=seed, num_frames=1))
    return tmp_path / "out"


def export(judge: str, out: Path, *options: str) -> int:
    return main(["export", judge, str(out), "--to", str(out.parent / judge), *options])


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_fid_gets_numbered_images_in_the_order_of_ids(out):
    assert export("fid", out) == 0
    assert files(out.parent / "fid" / "images") == ["000000.png", "000001.png", "000002.png"]
    facts = [read_facts(path) for path in sorted((out.parent / "fid" / "images").iterdir())]
    assert [(each["prompt"], each["seed"]) for each in facts] == [
        (PROMPTS[1], "9"),
        (PROMPTS[0], "7"),
        (PROMPTS[0], "8"),
    ]
    record = json.loads((out.parent / "fid" / "batch.json").read_text())
    assert [row["id"] for row in record["images"]] == ["a", "b-0", "b-1"]


def test_drawbench_gets_images_by_the_ids_of_prompts_and_says_where_they_are_fewer(out, capsys):
    to = out.parent / "drawbench"
    assert export("drawbench", out) == 3
    assert "1 to 2 images a prompt: ImageReward takes as many of each" in " ".join(capsys.readouterr().out.split())
    assert json.loads((to / "prompts.json").read_text()) == [
        {"id": "00000", "prompt": PROMPTS[1]},
        {"id": "00001", "prompt": PROMPTS[0]},
    ]
    assert files(to / "images" / "resca") == ["00000_0.png", "00001_0.png", "00001_1.png"]
    finish(settings(out, medium="image", fps=None), item(id="c", prompt=PROMPTS[1], seed=1, num_frames=1))
    assert export("drawbench", out) == 0
    assert [read_facts(to / "images" / "resca" / f"00000_{index}.png")["seed"] for index in (0, 1)] == ["1", "9"]


def test_geneval_gets_a_folder_for_each_line_of_its_metadata(out, capsys):
    metadata, to = out.parent / "metadata.jsonl", out.parent / "geneval"
    metadata.write_text("".join(f"{json.dumps(line)}\n" for line in METADATA))
    assert export("geneval", out, "--metadata", str(metadata)) == 3
    said = " ".join(capsys.readouterr().out.split())
    assert "1 prompt of" in said and "without an image" in said and "1 prompt left out" in said
    assert files(to / "images") == ["00001/metadata.jsonl", "00001/samples/00000.png", "00001/samples/00001.png"]
    assert json.loads((to / "images" / "00001" / "metadata.jsonl").read_text()) == METADATA[1]
    folders = list((to / "images").iterdir())
    names = [path.name for folder in folders for path in (folder / "samples").iterdir()]
    assert all(folder.name.isdigit() for folder in folders) and all(re.match(r"\d+\.png", name) for name in names)


def test_metadata_of_geneval_is_a_prompt_file_too(tmp_path):
    from jobs.request.prompts import Defaults, read_items

    path = tmp_path / "metadata.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in METADATA))
    items = read_items(path, Defaults(height=16, width=16, num_frames=1, steps=4, seed=5), copies=2)
    assert [(each.prompt, each.id, each.seed) for each in items] == [
        ("a cow", "0000-0", 5),
        ("a cow", "0000-1", 6),
        ("a cat", "0001-0", 7),
        ("a cat", "0001-1", 8),
    ]


def test_what_is_missing_or_damaged_is_left_out_and_told(out, capsys):
    image = next((out / "videos").glob("a-*.png"))
    image.write_bytes(image.read_bytes()[:-3])
    ledger = Ledger(open_storage(out))
    ledger.add("begin", total=4, todo=1, medium="image")
    ledger.add("start", id="d")
    ledger.flush()
    assert export("fid", out) == 3
    said = " ".join(capsys.readouterr().out.split())
    assert "2 images of 1 prompt" in said and f"1 image missing or damaged, left out (videos/{image.name})" in said
    assert "the batch is not done: 1 image running" in said
    assert files(out.parent / "fid" / "images") == ["000000.png", "000001.png"]


@pytest.mark.parametrize("judge", ["drawbench", "fid"])
def test_videos_and_other_directories_are_refused(tmp_path, capsys, judge):
    finish(settings(tmp_path / "out"), item())
    assert export(judge, tmp_path / "out") == 2
    assert "judges images, and" in capsys.readouterr().err
    assert export(judge, tmp_path / "nothing") == 2
    finish(settings(tmp_path / "images", medium="image", fps=None), item(num_frames=1))
    (tmp_path / judge / "mine.txt").parent.mkdir()
    (tmp_path / judge / "mine.txt").write_text("mine")
    assert export(judge, tmp_path / "images") == 2
    assert "is not empty and holds no export" in " ".join(capsys.readouterr().err.split())
    assert files(tmp_path / judge) == ["mine.txt"]


def test_a_damaged_list_of_geneval_is_named(out, capsys):
    (out.parent / "metadata.jsonl").write_text('{"tag": "counting"}\n')
    assert export("geneval", out, "--metadata", str(out.parent / "metadata.jsonl")) == 2
    assert "is not GenEval's evaluation_metadata.jsonl: prompt: Field required" in " ".join(
        capsys.readouterr().err.split()
    )
