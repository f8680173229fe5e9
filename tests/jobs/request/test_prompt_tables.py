"""Prompts in tables and in the lines of an OpenAI video batch."""

import pytest

from jobs.request.prompts import read_items
from tests.jobs.request.prompt_file import DEFAULTS, complaint, write


def test_csv_columns_may_stand_in_any_order_and_cells_may_be_empty(tmp_path):
    text = "id,steps,prompt,height\nmine,9,a red ball,\n,,a blue cube,32\n,,,\n"
    first, second = read_items(write(tmp_path, "p.csv", text), DEFAULTS)
    assert (first.id, first.steps, first.prompt, first.height) == ("mine", 9, "a red ball", 64)
    assert (second.id, second.steps, second.prompt, second.height) == ("0001", 50, "a blue cube", 32)


@pytest.mark.parametrize(
    "name, text",
    [
        ("p.csv", 'Prompt,Seed\n"a red, round ball",7\n'),
        ("p.csv", "prompt;seed\na red, round ball;7\n"),
        ("p.csv", "prompt\tseed\na red, round ball\t7\n"),
        ("p.tsv", "prompt\tseed\na red, round ball\t7\n"),
        ("p.tsv", "seed;prompt\n7;a red, round ball\n"),
        ("p.csv", "prompt;seed\na red, round ball;7.0\n"),
        ("p.csv", ";prompt;seed\n0;a red, round ball;7\n"),
        ("p.csv", "Unnamed: 0;prompt;seed\n0;a red, round ball;7\n"),
        ("p.csv", "index;prompt;seed\n0;a red, round ball;7\n"),
        ("p.csv", "prompt;seed;\na red, round ball;7;\n"),
    ],
)
def test_tables_are_read_as_pandas_and_spreadsheets_write_them(tmp_path, name, text):
    [item] = read_items(write(tmp_path, name, text), DEFAULTS)
    assert (item.prompt, item.seed, item.id) == ("a red, round ball", 7, "0000")


def test_a_column_may_name_methods(tmp_path):
    items = read_items(write(tmp_path, "p.csv", "prompt,Method\na,full\nb,\n"), DEFAULTS)
    assert [item.method for item in items] == ["full", None]


def test_one_column_of_a_tsv_may_hold_commas_and_semicolons(tmp_path):
    text = "prompt\na red, round; ball\n"
    assert read_items(write(tmp_path, "p.tsv", text), DEFAULTS)[0].prompt == "a red, round; ball"


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
        ("prompt,seed\na,1.5\n", "line 2: seed '1.5'"),
        ("prompt,\na,hidden\n", "line 2: unknown field 'column 2'"),
        ("prompt,index\na,first\n", "line 2: unknown field 'index'"),
        ("prompt,cfg,sampler\na,,euler\nb,7,euler\n", "line 2: unknown field 'sampler'; line 3: field 'cfg'; known"),
        ("x" * 200_000, "line 1 is not valid CSV: field larger than field limit"),
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


def test_openai_batch_request_is_posted_by_one_method_and_rendered_by_another(tmp_path):
    text = request('{"prompt": "a"}') + '{"method": "POST", "body": {"prompt": "b", "method": "full"}}\n'
    first, second = read_items(write(tmp_path, "p.jsonl", text), DEFAULTS)
    assert (first.method, second.method) == (None, "full")


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
        (request('{"prompt": "a"}', ', "seed": 1, "id": "b"'), "unknown fields 'seed', 'id' beside body"),
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
