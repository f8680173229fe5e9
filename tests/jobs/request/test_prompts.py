"""Prompt files become items, or one sentence that names the file and the line."""

import json
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


def test_byte_order_marks_of_joined_files_are_no_part_of_prompts_or_comments(tmp_path):
    text = "\ufeffa red ball\n\ufeff\ufeff# second list\n\ufeffa blue cube\n"
    items = read_items(write(tmp_path, "p.txt", text), DEFAULTS)
    assert [item.prompt for item in items] == ["a red ball", "a blue cube"]
    text = '\ufeff{"prompt": "a"}\n\ufeff{"prompt": "b"}\n'
    assert [item.prompt for item in read_items(write(tmp_path, "p.jsonl", text), DEFAULTS)] == ["a", "b"]


def test_tables_that_were_joined_may_repeat_their_header(tmp_path):
    text = "\ufeffprompt,seed\na,1\n\ufeffprompt,seed\nb,2\n"
    items = read_items(write(tmp_path, "p.csv", text), DEFAULTS)
    assert [(item.prompt, item.seed) for item in items] == [("a", 1), ("b", 2)]


def test_prompts_of_files_joined_without_a_line_end_are_refused(tmp_path):
    message = complaint(write(tmp_path, "p.txt", "fine\na red ball\ufeffa blue cube\n"))
    assert "p.txt, line 2 holds a byte order mark" in message


def test_every_kind_of_line_end_ends_a_line(tmp_path):
    (tmp_path / "p.txt").write_bytes(b"a\rb\r\nc\n")
    assert [item.prompt for item in read_items(tmp_path / "p.txt", DEFAULTS)] == ["a", "b", "c"]


@pytest.mark.parametrize(
    "line, option",
    [
        ("a red circle moves left --w 96 --h 64 --f 9 --d 1234 --s 8", "--w"),
        ("a blue square moves up --n blurry --d 7", "--n"),
        ('--prompt "a red circle" --negative_prompt "blurry" --seed 12', "--prompt"),
        ('"a red circle moves left" -n4 -H64 -W96 -S1234', "-n4"),
        ("a red circle -s 50", "-s 50"),
        ("a red circle --ar 16:9", "--ar"),
        ("a red circle —ar 16:9", "—ar 16:9"),
        ("a red circle –w 96", "–w 96"),
        ("a red circle --video-size=720", "--video-size"),
        ("a red circle --tile", "--tile"),
        ("Negative prompt: blurry", "Negative prompt:"),
        ("Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1", "Steps: 20,"),
        ("a red circle, Steps: 20, Sampler: Euler a", "Steps: 20, Sampler:"),
        ("a red circle <lora:shapes:0.8>", "<lora:"),
    ],
)
def test_options_of_other_programs_are_refused_where_they_would_be_text_of_the_picture(tmp_path, line, option):
    message = complaint(write(tmp_path, "p.txt", f"fine\n\n{line}\n"))
    assert f"p.txt, line 3: '{option}' would be text of the picture" in message
    assert 'in a .jsonl file such as {"prompt": "a red ball", "width": 96, "seed": 7}' in message


@pytest.mark.parametrize(
    "prompt",
    [
        "a man walks -- slowly -- home",
        "the dog --a big one-- runs",
        "a man --slowly-- walks",
        "an F-16 over a 10-20 m high wall at -5 degrees",
        "a sign: steps: up, prompt: down",
        "x--y, state-of-the-art",
    ],
)
def test_dashes_of_prose_are_no_options(tmp_path, prompt):
    assert [item.prompt for item in read_items(write(tmp_path, "p.txt", f"{prompt}\n"), DEFAULTS)] == [prompt]


def test_tables_and_json_take_options_as_the_text_that_they_are(tmp_path):
    assert read_items(write(tmp_path, "p.csv", "prompt\na --w 96\n"), DEFAULTS)[0].prompt == "a --w 96"
    assert read_items(write(tmp_path, "p.jsonl", '{"prompt": "a --w 96"}\n'), DEFAULTS)[0].prompt == "a --w 96"


def test_missing_file_is_named(tmp_path):
    assert "none.txt does not exist" in complaint(tmp_path / "none.txt")


@pytest.mark.parametrize("name, text", [("p.txt", ""), ("p.txt", "\n# only this\n"), ("p.jsonl", "\n")])
def test_file_without_prompts_is_named(tmp_path, name, text):
    assert f"{name} has no prompts" in complaint(write(tmp_path, name, text))


def test_other_suffix_is_refused(tmp_path):
    assert "must end in .txt, .csv, .tsv, .json or .jsonl" in complaint(write(tmp_path, "p.pdf", "a"))


def test_directory_is_refused(tmp_path):
    (tmp_path / "p.txt").mkdir()
    assert "cannot read prompt file" in complaint(tmp_path / "p.txt")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["p.txt", "p.csv"])
def test_utf_16_is_named(tmp_path, name, encoding):
    (tmp_path / name).write_bytes("prompt\tseed\r\na red circle\t1\r\n".encode(encoding))
    assert f"{name} is UTF-16 text from line 1 on; save it as UTF-8" in complaint(tmp_path / name)


def test_windows_1252_is_named_with_its_line_as_it_would_read(tmp_path):
    (tmp_path / "p.txt").write_bytes("fine\r\na café – a red circle\r\n".encode("cp1252"))
    message = complaint(tmp_path / "p.txt")
    assert "p.txt, line 2 is not UTF-8; as Windows-1252 it reads 'a café – a red circle'; save the file as" in message


def test_bytes_of_no_text_are_named_by_their_line(tmp_path):
    (tmp_path / "p.txt").write_bytes(b"fine\n\x81\xff\n")
    assert "p.txt, line 2 is neither UTF-8 nor Windows-1252 text" in complaint(tmp_path / "p.txt")


@pytest.mark.parametrize(
    "line, what",
    [
        ('{"prompt": "a"', "not valid JSON"),
        ("[1]", "must be a JSON object"),
        ('{"prompt": "a", "sede": 1}', "unknown field 'sede'; known: prompt, id, seed"),
        ('{"prompt": "a", "seed": 1, "seed": 2}', "not valid JSON: a name stands twice among prompt, seed, seed"),
        ('{"prompt": "a", "Prompt": "b"}', "two fields that differ in their letters' case alone: prompt, Prompt"),
        ('{"id": "x"}', "field 'prompt' is missing"),
        ('{"prompt": "  "}', "prompt"),
        ('{"prompt": "a", "height": "64"}', "height '64'"),
        ('{"prompt": "a", "steps": 0}', "steps 0"),
        ('{"prompt": "a", "seed": -1}', "seed -1"),
        ('{"prompt": "a", "seed": true}', "seed True"),
        ('{"prompt": "a", "seed": 1.5}', "seed 1.5"),
        ('{"prompt": "a", "seed": 1e300}', "seed 1e+300"),
        ('{"prompt": "a", "id": true}', "id True"),
        ('{"prompt": "a", "export_as": " "}', "export_as ' '"),
        ('{"prompt": "a", "export_as": "b\\u0000"}', "export_as 'b\\x00' has a NUL character"),
        ('{"prompt": "a", "seed": ' + "9" * 5000 + "}", "not valid JSON"),
        ('{"prompt": "\\ud800"}', "prompt"),
        ('{"prompt": "a\\u0000b"}', "has a NUL character"),
    ],
)
def test_bad_line_is_named(tmp_path, line, what):
    message = complaint(write(tmp_path, "p.jsonl", '{"prompt": "fine"}\n\n' + line + "\n"))
    assert "p.jsonl, line 3" in message and what in message


def test_all_unknown_fields_are_named_at_once_with_the_first_line_of_each(tmp_path):
    text = '{"prompt": "a", "cfg": 7, "sede": 1}\n{"prompt": "b", "cfg": 7}\n{"prompt": "c", "lora": "d"}\n'
    message = complaint(write(tmp_path, "p.jsonl", text))
    assert "p.jsonl, line 1: unknown fields 'cfg', 'sede'; line 3: field 'lora'; known: prompt, id" in message


def test_a_sentence_on_unknown_fields_stays_one_that_can_be_read(tmp_path):
    wide = json.dumps({"prompt": "a"} | {f"a{number}": 1 for number in range(1000)})
    tall = "".join(f'{{"prompt": "a", "b{number}": 1}}\n' for number in range(1000))
    message = complaint(write(tmp_path, "p.jsonl", f"{wide}\n{tall}"))
    assert "'a19' and 980 more; line 2: field 'b0'; line 3" in message and len(message) < 2000


def test_fields_may_be_written_as_others_write_them(tmp_path):
    text = '{"Prompt": "a", "Num Frames": 9, "id": 1, "seed": 7.0, "steps": NaN}\n'
    [item] = read_items(write(tmp_path, "p.jsonl", text), DEFAULTS)
    assert (item.prompt, item.num_frames, item.id, item.seed, item.steps) == ("a", 9, "1", 7, 50)


@pytest.mark.parametrize("name", ["p.json", "p.jsonl"])
@pytest.mark.parametrize("indent", [None, 2])
def test_json_array_holds_objects_or_prompts(tmp_path, name, indent):
    text = json.dumps([{"prompt": "a red circle", "seed": 3}, "a blue square"], indent=indent)
    first, second = read_items(write(tmp_path, name, text), DEFAULTS)
    assert (first.prompt, first.seed, second.prompt, second.seed) == ("a red circle", 3, "a blue square", 101)
    assert second.where.endswith(f"{name}, entry 2")


def test_json_lines_may_be_called_json(tmp_path):
    assert len(read_items(write(tmp_path, "p.json", '{"prompt": "a"}\n{"prompt": "b"}\n'), DEFAULTS)) == 2


@pytest.mark.parametrize(
    "text, what",
    [
        (
            '[{"prompt": "a"},\n {"prompt" "b"}]',
            "p.json is not valid JSON: Expecting ':' delimiter at line 2, column 12",
        ),
        ('[{"prompt": "a"}, 7]', "p.json, entry 2 must be a JSON object"),
        ('[{"prompt": "a"}, {"cfg": 7}]', "p.json, entry 2: unknown field 'cfg'"),
        ('{\n "prompt": "a"\n}', "p.json, line 1 is not valid JSON"),
        ("[]", "p.json has no prompts"),
        ("[" * 100_000, "p.json is not valid JSON"),
    ],
)
def test_bad_json_is_named(tmp_path, text, what):
    assert what in complaint(write(tmp_path, "p.json", text))


def test_vbench_full_info_is_read_by_its_prompts(tmp_path):
    entry = {"prompt_en": "a red circle", "dimension": ["color"], "auxiliary_info": {"color": {"color": "red"}}}
    text = json.dumps([entry, {"prompt_en": "a blue square", "dimension": ["scene"]}])
    items = read_items(write(tmp_path, "VBench_full_info.json", text), DEFAULTS)
    assert [item.prompt for item in items] == ["a red circle", "a blue square"]


def test_export_as_names_a_video_for_an_export(tmp_path):
    text = "prompt,export_as\na long rewritten prompt,a cat\na dog,\n"
    assert [item.export_as for item in read_items(write(tmp_path, "p.csv", text), DEFAULTS)] == ["a cat", None]


def test_suffix_may_be_in_capitals(tmp_path):
    assert read_items(write(tmp_path, "P.TXT", "a red ball\n"), DEFAULTS)[0].prompt == "a red ball"


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
