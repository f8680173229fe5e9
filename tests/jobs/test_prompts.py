"""Prompt files become items, or one sentence that names the file and the line."""

from pathlib import Path

import pytest

from jobs.errors import BadInput
from jobs.prompts import Defaults, read_items

DEFAULTS = Defaults(height=64, width=96, num_frames=17, steps=50, seed=100)


def write(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path


def complaint(path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        read_items(path, DEFAULTS)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_text_file_has_one_prompt_a_line_and_skips_blanks_and_comments(tmp_path):
    path = write(tmp_path, "p.txt", "# shapes\na red ball\n\n  a blue cube  \n")
    items = read_items(path, DEFAULTS)
    assert [item.prompt for item in items] == ["a red ball", "a blue cube"]
    assert [item.id for item in items] == ["0000", "0001"]
    assert [item.seed for item in items] == [100, 101]
    assert {(item.height, item.width, item.num_frames, item.steps) for item in items} == {(64, 96, 17, 50)}


def test_jsonl_line_overrides_defaults_field_by_field(tmp_path):
    path = write(tmp_path, "p.jsonl", '{"prompt": "a"}\n{"prompt": "b", "id": "my.b-1", "seed": 7, "steps": 9}\n')
    first, second = read_items(path, DEFAULTS)
    assert (first.id, first.seed, first.steps) == ("0000", 100, 50)
    assert (second.id, second.seed, second.steps, second.height) == ("my.b-1", 7, 9, 64)
    assert second.where.endswith("p.jsonl, line 2")


def test_line_separator_inside_a_json_string_does_not_end_the_line(tmp_path):
    assert len(read_items(write(tmp_path, "p.jsonl", '{"prompt": "a\u2028b"}\r\n'), DEFAULTS)) == 1


def test_byte_order_mark_is_not_part_of_the_first_prompt(tmp_path):
    assert read_items(write(tmp_path, "p.txt", "\ufeffa red ball\n"), DEFAULTS)[0].prompt == "a red ball"


def test_missing_file_is_named(tmp_path):
    assert "none.txt does not exist" in complaint(tmp_path / "none.txt")


@pytest.mark.parametrize("name, text", [("p.txt", ""), ("p.txt", "\n# only this\n"), ("p.jsonl", "\n")])
def test_file_without_prompts_is_named(tmp_path, name, text):
    assert f"{name} has no prompts" in complaint(write(tmp_path, name, text))


def test_other_suffix_is_refused(tmp_path):
    assert "must end in .txt or .jsonl" in complaint(write(tmp_path, "p.pdf", "a"))


def test_directory_is_refused(tmp_path):
    (tmp_path / "p.txt").mkdir()
    assert "cannot read prompt file" in complaint(tmp_path / "p.txt")


def test_text_in_another_encoding_is_refused(tmp_path):
    (tmp_path / "p.txt").write_bytes(b"caf\xe9")
    assert "not UTF-8" in complaint(tmp_path / "p.txt")


@pytest.mark.parametrize(
    "line, what",
    [
        ('{"prompt": "a"', "not valid JSON"),
        ("[1]", "must be a JSON object"),
        ('{"prompt": "a", "sede": 1}', "unknown field 'sede'; known: prompt, id, seed"),
        ('{"id": "x"}', "field 'prompt' is missing"),
        ('{"prompt": "  "}', "prompt"),
        ('{"prompt": "a", "height": "64"}', "height '64'"),
        ('{"prompt": "a", "steps": 0}', "steps 0"),
        ('{"prompt": "a", "seed": -1}', "seed -1"),
        ('{"prompt": "a", "seed": true}', "seed True"),
        ('{"prompt": "a", "seed": ' + "9" * 5000 + "}", "not valid JSON"),
        ('{"prompt": "\\ud800"}', "prompt"),
    ],
)
def test_bad_line_is_named(tmp_path, line, what):
    message = complaint(write(tmp_path, "p.jsonl", '{"prompt": "fine"}\n\n' + line + "\n"))
    assert "p.jsonl, line 3" in message and what in message


@pytest.mark.parametrize("name", ["../up", "a/b", "a\\\\b", ".hidden", "a b", "", "x" * 65, "é", "a\\n"])
def test_id_that_is_unsafe_in_a_file_name_is_refused(tmp_path, name):
    assert "not safe in a file name" in complaint(write(tmp_path, "p.jsonl", f'{{"prompt": "a", "id": "{name}"}}'))


@pytest.mark.parametrize("second", ["one", "ONE"])
def test_duplicate_id_names_both_lines(tmp_path, second):
    text = f'{{"prompt": "a", "id": "one"}}\n{{"prompt": "b", "id": "{second}"}}\n'
    message = complaint(write(tmp_path, "p.jsonl", text))
    assert f"duplicate id '{second}'" in message and "line 1" in message and "line 2" in message
