"""Prompt files become items, or one sentence that names the file and the line."""

import json

import pytest

from jobs.request.prompts import read_items
from tests.jobs.request.prompt_file import DEFAULTS, complaint, write


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


UNSEEN = "\u200b\u2060\u00ad \ufe0f\u3164"


def test_a_line_of_what_nobody_sees_is_empty(tmp_path):
    for name, text in (
        ("p.txt", "red\n{}\nblue\n"),
        ("p.csv", "prompt\nred\n{}\nblue\n"),
        ("p.jsonl", '"red"\n{}\n"blue"'),
    ):
        items = read_items(write(tmp_path, name, text.format(UNSEEN)), DEFAULTS)
        assert [(item.id, item.prompt) for item in items] == [("0000", "red"), ("0001", "blue")]
    assert "there is nothing in it that can be seen" in complaint(write(tmp_path, "p.json", f'["{UNSEEN}"]'))
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    assert read_items(write(tmp_path, "p.txt", family), DEFAULTS)[0].prompt == family


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
        ('{"prompt": "a", "method": ""}', "method ''"),
        ('{"prompt": "a", "method": 9}', "method 9"),
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
        ("[" * 100_000, "p.json is nested too deeply"),
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


def test_a_line_may_name_its_own_method(tmp_path):
    text = '{"prompt": "a", "method": " full "}\n{"prompt": "a", "method": "auto-9"}\n"a"\n'
    items = read_items(write(tmp_path, "p.jsonl", text), DEFAULTS)
    assert [item.method for item in items] == ["full", "auto-9", None]
    assert [(item.id, item.seed) for item in items] == [("0000", 100), ("0001", 101), ("0002", 102)]


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
