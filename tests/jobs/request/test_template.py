"""A template over a table, seeds x prompts, and a random sample."""

from pathlib import Path

import pytest

from jobs.driver.batch_plan import make_plan
from jobs.errors import BadInput
from jobs.options.batch import RenderOptions
from jobs.options.command_line import parse
from jobs.options.shared import PromptOptions
from jobs.request.choice import chosen, part_as_given, seeds_as_given
from jobs.request.prompts import Item, Numbering, items_of
from jobs.request.source import read_source
from tests.jobs.conftest import complaint, render
from tests.jobs.request.prompt_file import DEFAULTS, write


def items(template: str, table: Path, numbering: Numbering | None = None) -> list[Item]:
    source = read_source(None, PromptOptions(template=template, table=table), DEFAULTS.fps)
    return items_of(source.lines, source.path, DEFAULTS, numbering or Numbering())


TABLE = "Animal,place,mood,width,id\na cat, a park ,sad,32,one\na dog,the sea,glad,,\n"


def test_a_template_makes_a_prompt_of_each_row_and_other_known_columns_are_settings(tmp_path):
    table = write(tmp_path, "animals.csv", TABLE)
    first, second = items("{animal} in {Place}, {{oil}}", table)
    assert (first.prompt, first.width, first.id) == ("a cat in a park, {oil}", 32, "one")
    assert (second.prompt, second.width, second.id) == ("a dog in the sea, {oil}", 96, "0001")
    assert second.where == f"{table}, line 3"


def test_a_column_that_the_template_names_is_text_alone(tmp_path):
    table = write(tmp_path, "t.tsv", "width\tprompt\n7\ta wall\n")
    [item] = items("{prompt}, {width} m wide", table)
    assert (item.prompt, item.width) == ("a wall, 7 m wide", 96)


def test_the_delimiter_is_that_of_the_columns(tmp_path):
    assert items("{a} {b}", write(tmp_path, "t.csv", "a;b\n1,5;x\n"))[0].prompt == "1,5 x"


@pytest.mark.parametrize(
    "template, table, what",
    [
        ("a {colour} cat", TABLE, "--template names the column 'colour', which t.csv does not have; it has animal, pl"),
        ("a {animal} {", TABLE, "braces that are text twice, {{ and }}"),
        ("a } {animal}", TABLE, "braces that are text twice, {{ and }}"),
        ("a cat", TABLE, "'a cat' names no column of the table; write columns in braces"),
        ("{}", TABLE, "has {} with more or less than a column's name"),
        ("{animal.x}", TABLE, "has {animal.x} with more or less"),
        ("{animal!r}", TABLE, "has {animal} with more or less"),
        ("{animal:>9}", TABLE, "has {animal} with more or less"),
        ("{animal[0]}", TABLE, "has {animal[0]} with more or less"),
        ("{animal}", "animal,x\na,1\n,2\n", "t.csv, line 3 has nothing in the column 'animal', which --template"),
        ("{animal}", "animal,x\na\n", "t.csv, line 2 has 1 cells where the header has 2"),
        ("{animal}", "", "which t.csv does not have; it is empty"),
        ("{animal}", "animal,height\na,tall\n", "t.csv, line 2: height 'tall': Input should be a valid integer"),
    ],
)
def test_what_is_wrong_with_template_or_table_is_one_sentence(place, capsys, template, table, what):
    write(place, "t.csv", table)
    assert what in complaint(capsys, "--template", template, "--table", "t.csv")


def test_it_is_clear_where_prompts_come_from(place, capsys):
    write(place, "t.csv", TABLE)
    assert "name a file of prompts, or a --template with its --table" in complaint(capsys)
    assert "--template needs a --table" in complaint(capsys, "--template", "{animal}")
    assert "--table needs a --template" in complaint(capsys, "--table", "t.csv")
    words = ["good.txt", "--template", "{animal}", "--table", "t.csv"]
    assert "take the place of a prompt file; leave out good.txt, or them" in complaint(capsys, *words)
    write(place, "t.json", "[]")
    assert "--table t.json must end in .csv or .tsv" in complaint(capsys, "--template", "{a}", "--table", "t.json")
    write(place, "t.csv", "animal\n")
    assert "t.csv has no prompts" in complaint(capsys, "--template", "{animal}", "--table", "t.csv")


def test_seeds_are_a_list_of_ranges():
    assert seeds_as_given("0..4") == (0, 1, 2, 3, 4)
    assert seeds_as_given("7, 0..1") == (7, 0, 1)
    assert seeds_as_given(None) == ()


@pytest.mark.parametrize(
    "seeds, what",
    [
        ("", "should be seeds such as 0..4"),
        ("a", "should be seeds such as 0..4"),
        ("-1..3", "should be seeds such as 0..4"),
        ("4..0", "4..0 ends before it begins"),
        ("0..3,2", "name a seed twice"),
        ("0..10000", "are more than 10000 seeds a prompt"),
        ("9223372036854775808", "a seed must be below 2**63"),
    ],
)
def test_what_are_no_seeds_is_said(place, capsys, seeds, what):
    assert what in complaint(capsys, "good.txt", f"--seeds={seeds}")


def test_each_prompt_is_rendered_with_each_seed(tmp_path):
    source = read_source(write(tmp_path, "p.csv", "prompt,id,output\na,,\nb,x,mine.mp4\n"), PromptOptions(), 8)
    made = items_of(source.lines, source.path, DEFAULTS, Numbering(seeds=(3, 9)))
    assert [(item.prompt, item.id, item.seed) for item in made] == [
        *(("a", "0000-3", 3), ("a", "0000-9", 9), ("b", "x-3", 3), ("b", "x-9", 9))
    ]
    assert [item.output for item in made] == [None, None, "mine-3", "mine-9"]


def test_seeds_stand_in_one_place(place, capsys):
    write(place, "p.csv", "prompt,seed\na,1\n")
    assert "p.csv, line 2 has a seed of its own; leave it out, or --seeds" in complaint(
        capsys, "p.csv", "--seeds", "0..1"
    )
    assert "--seed is that of the first prompt" in complaint(capsys, "good.txt", "--seeds", "0..1", "--seed", "3")


def test_a_sample_is_the_same_for_the_same_seed_and_another_for_another():
    lines = list(range(1000))
    one = chosen(lines, sample="1%", seed=5)
    assert len(one) == 10 and one == sorted(one) == chosen(lines, sample="1%", seed=5)
    assert one != chosen(lines, sample="1%", seed=6)
    assert chosen(lines, limit=3) == [0, 1, 2] and len(chosen(lines, limit=100, sample="10 %")) == 10
    assert max(chosen(lines, limit=100, sample="50%")) < 100
    assert len(chosen(lines, sample="0.0001%")) == 1 and chosen(lines, sample="100%") == lines
    assert chosen([], sample="1%") == []


def test_a_sample_takes_all_items_of_a_prompt():
    sample = chosen(list(range(30)), group=3, sample="20%")
    assert len(sample) == 6 and all(first % 3 == 0 for first in sample[::3])
    assert [each // 3 for each in sample[::3]] == [each // 3 for each in sample[2::3]]


@pytest.mark.parametrize("sample", ["0%", "101%", "1", "-1%", "%", "1e2%", "NaN%"])
def test_what_is_no_part_is_said(place, capsys, sample):
    assert "should be a part of all prompts, above 0% and up to 100%" in complaint(
        capsys, "good.txt", f"--sample={sample}"
    )
    with pytest.raises(BadInput):
        part_as_given(sample)


def test_a_sample_is_rendered_and_the_rest_later(place):
    write(place, "many.txt", "".join(f"ball {number}\n" for number in range(50)))
    options = parse(["render", "many.txt", "--out", "out", "--model", "model", "--sample", "10%"])
    assert isinstance(options, RenderOptions)
    sample = make_plan(options)
    assert len(sample.items) == 5
    assert all(item.id == f"{item.seed:04d}" and item.prompt == f"ball {item.seed}" for item in sample.items)


def test_files_of_ones_own_names_lie_under_them(place, capsys):
    write(place, "p.jsonl", '{"prompt": "a", "output": "hero.mp4"}\n{"prompt": "b", "id": "x", "output": "b.1"}\n')
    options = parse(["render", "p.jsonl", "--out", "out", "--model", "model"])
    assert isinstance(options, RenderOptions)
    assert [item.sidecar for item in make_plan(options).items] == ["videos/hero.json", "videos/b.1.json"]
    write(place, "p.jsonl", '{"prompt": "a"}\n{"prompt": "b", "output": "0000-A-s0"}\n')
    assert render("p.jsonl") == 2
    assert "items '0000' and '0001' would both be written to videos/0000-A-s0" in capsys.readouterr().err
