"""Prompt files become items, or one sentence that names the file and the line."""

from pathlib import Path

import pytest

from jobs.errors import BadInput
from jobs.request.prompts import Defaults, read_items

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
    assert "must end in .txt, .csv or .jsonl" in complaint(write(tmp_path, "p.pdf", "a"))


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
        ('{"prompt": "a\\u0000b"}', "has a NUL character"),
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


def test_csv_columns_may_stand_in_any_order_and_cells_may_be_empty(tmp_path):
    text = "id,steps,prompt,height\nmine,9,a red ball,\n,,a blue cube,32\n,,,\n"
    first, second = read_items(write(tmp_path, "p.csv", text), DEFAULTS)
    assert (first.id, first.steps, first.prompt, first.height) == ("mine", 9, "a red ball", 64)
    assert (second.id, second.steps, second.prompt, second.height) == ("0001", 50, "a blue cube", 32)


def test_csv_is_quoted_as_rfc_4180_says(tmp_path):
    text = '\ufeffprompt,seed\r\n"a ""red"" ball, and\r\na cube",7\r\n\r\n 123 ,8\r\n'
    first, second = read_items(write(tmp_path, "p.csv", text), DEFAULTS)
    assert (first.prompt, first.seed, first.where[-6:]) == ('a "red" ball, and\na cube', 7, "line 2")
    assert (second.prompt, second.seed, second.where[-6:]) == ("123", 8, "line 5")


@pytest.mark.parametrize(
    "text, what",
    [
        ("seed,id\n1,a\n", "line 1 must name the columns, one of them prompt"),
        ("prompt,sede\na,1\n", "line 2: unknown field 'sede'; known: prompt, id, seed"),
        ("prompt,where\na,here\n", "line 2: unknown field 'where'"),
        ("prompt,seed,seed\na,1,2\n", "line 1 names the column 'seed' twice"),
        ('prompt\n"a\nb"\na, b\n', "line 4 has 2 cells where the header has 1; quote cells with commas"),
        ("prompt,seed\na\n", "line 2 has 1 cells where the header has 2"),
        ('prompt\nb\n"a\n', "line 3 is not valid CSV"),
        ('prompt\n"a" b\n', "line 2 is not valid CSV"),
        ("prompt,seed\na,1.0\n", "line 2: seed '1.0'"),
        ("prompt,seed\na,-1\n", "line 2: seed -1"),
        ("prompt,seed\n,3\n", "line 2: field 'prompt' is missing"),
        ("prompt,id\na,../b\n", "not safe in a file name"),
        ("prompt,seed\n", "has no prompts"),
        ("", "has no prompts"),
    ],
)
def test_bad_csv_is_named_by_its_line(tmp_path, text, what):
    assert what in complaint(write(tmp_path, "p.csv", text))


def request(body: str, rest: str = "") -> str:
    return f'{{"custom_id": "request-1", "method": "POST", "url": "/v1/videos", "body": {body}{rest}}}\n'


def test_openai_batch_request_is_an_item(tmp_path):
    body = '{"model": "sora-2", "prompt": "a red ball", "size": "1280x720", "seconds": "4", "seed": 3}'
    [item] = read_items(write(tmp_path, "p.jsonl", request(body)), DEFAULTS)
    assert (item.id, item.prompt, item.seed) == ("request-1", "a red ball", 3)
    assert (item.width, item.height, item.num_frames, item.steps) == (1280, 720, 4 * DEFAULTS.fps + 1, 50)


def test_openai_batch_request_takes_defaults_and_own_fields(tmp_path):
    text = request('{"prompt": "a", "steps": 9}') + '{"body": {"prompt": "b", "num_frames": 5}}\n'
    first, second = read_items(write(tmp_path, "p.jsonl", text), DEFAULTS)
    assert (first.steps, first.width, first.num_frames) == (9, 96, 17)
    assert (second.id, second.num_frames, second.seed) == ("0001", 5, 101)


@pytest.mark.parametrize(
    "line, what",
    [
        (request('{"prompt": "a", "input_reference": {"file_id": "f"}}'), "unknown field 'input_reference'; known"),
        (request('{"messages": []}'), "unknown field 'messages'"),
        (request("{}"), "field 'prompt' is missing"),
        (request("[]"), "body must be an object"),
        ('{"custom_id": "a"}', "body must be an object"),
        (request('{"prompt": "a"}', ', "prompt": "b"'), "unknown field 'prompt' beside body"),
        (request('{"prompt": "a", "id": "b"}'), "id cannot stand in body beside custom_id"),
        (request('{"prompt": "a", "size": "1280x720", "height": 720}'), "height cannot stand in body beside size"),
        (request('{"prompt": "a", "size": "720p"}'), "size '720p' must be WIDTHxHEIGHT"),
        (request('{"prompt": "a", "seconds": "4.5"}'), "seconds '4.5' must be a whole number"),
        (request('{"prompt": "a", "seconds": true}'), "seconds True must be a whole number"),
        (request('{"prompt": "a"}').replace("request-1", "request 1"), "id 'request 1' is not safe in a file name"),
    ],
)
def test_bad_openai_batch_request_is_named(tmp_path, line, what):
    message = complaint(write(tmp_path, "p.jsonl", '{"prompt": "fine"}\n' + line))
    assert "p.jsonl, line 2" in message and what in message
