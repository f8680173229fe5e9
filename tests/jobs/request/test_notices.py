"""What is said of prompts that can be rendered, but maybe not as they were meant."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.__main__ import main
from jobs.demo import PROMPTS_FILE
from jobs.errors import BadInput
from jobs.models.demos import DEMOS
from jobs.models.facts import read_facts, read_family
from jobs.models.family import Json
from jobs.models.prompt_length import cut_tokens
from jobs.request.notices import notices
from jobs.request.prompts import Defaults, read_items

ROOT = Path(__file__).parents[3]
DEFAULTS = Defaults(height=64, width=96, num_frames=17, steps=50)
DEMO = DEMOS["demo"]
FAMILY = read_family(DEMO, "demo")
TEMPLATE: Json = {"template": "{}", "crop_start": 0}
ROOM = 254  # 256 without the beginning and the end of the sequence


def said(path: Path, text: str) -> list[str]:
    path.write_text(text)
    return list(notices(read_items(path, DEFAULTS), path, read_facts("demo")))


def test_quotes_of_a_text_file_are_kept_and_that_is_said_once(tmp_path):
    text = '"a red circle moves left"\na "blue" square\n“a green square”,\n'
    [notice] = said(tmp_path / "p.txt", text)
    assert notice.startswith("quotes around a prompt are kept") and notice.endswith("p.txt, line 1, line 3")
    assert [item.prompt for item in read_items(tmp_path / "p.txt", DEFAULTS)] == text.splitlines()


def test_quotes_of_json_are_meant(tmp_path):
    assert said(tmp_path / "p.jsonl", json.dumps({"prompt": '"a red circle"'})) == []


def test_prompts_that_are_cut_are_told_by_their_lines(tmp_path):
    lines = ["a red circle", "red " * ROOM, "red " * (ROOM + 1), "red " * 300]
    [notice] = said(tmp_path / "p.txt", "\n".join(lines))
    assert notice.startswith("2 prompts are longer than the model reads, and cut off at the end:")
    assert notice.endswith("p.txt, line 3 by 1 tokens, line 4 by 46 tokens")


def test_many_lines_are_told_by_the_first_ones(tmp_path):
    [notice] = said(tmp_path / "p.txt", ("red " * 300 + "\n") * 25)
    assert notice.startswith("25 prompts are") and notice.endswith("line 10 by 46 tokens and 15 more")


def test_plan_and_render_say_it_before_the_start(tmp_path, capsys):
    (tmp_path / "p.txt").write_text(f'"a red circle"\n{"red " * 300}\n')
    assert main(["plan", str(tmp_path / "p.txt"), "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "quotes around a prompt are kept" in told and "1 prompt is longer than the model reads" in told


def test_the_price_of_weights_in_8_bits_is_told_before_the_start(tmp_path, capsys):
    (tmp_path / "p.txt").write_text("a red circle\n")
    plan = ["plan", str(tmp_path / "p.txt"), "--out", str(tmp_path / "out")]
    assert main(plan) == main([*plan, "--weights", "plain"]) == 0
    assert "LPIPS" not in capsys.readouterr().out
    assert main([*plan, "--weights", "fp8"]) == 0
    assert "others have measured LPIPS 0.2 to 0.5" in capsys.readouterr().out


def test_only_what_is_to_be_rendered_is_spoken_of(tmp_path, capsys):
    (tmp_path / "p.txt").write_text(f"a red circle\n{'red ' * 300}\n")
    assert main(["plan", str(tmp_path / "p.txt"), "--out", str(tmp_path / "out"), "--limit", "1"]) == 0
    assert "longer than the model reads" not in capsys.readouterr().out


def test_a_model_whose_tokenizer_has_no_file_of_its_own_is_not_judged(tmp_path):
    assert cut_tokens(tmp_path, FAMILY, TEMPLATE, ["red " * 300]) == {}


def test_short_prompts_do_not_read_a_tokenizer(tmp_path):
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "tokenizer.json").write_text("{")
    assert cut_tokens(tmp_path, FAMILY, None, ["a red circle"] * 3) == {}
    with pytest.raises(BadInput, match=r"cannot read the tokenizer .*tokenizer\.json"):
        cut_tokens(tmp_path, FAMILY, None, ["red " * 300])


def test_a_template_takes_its_part_of_the_room():
    text = "red " * 300
    assert cut_tokens(DEMO, FAMILY, {"template": "red {} red red", "crop_start": 2}, [text]) == {text: 300 - (ROOM - 1)}
    assert cut_tokens(DEMO, FAMILY, {"template": "red {}"}, [text]) == {}  # where it starts is the pipeline's to say


def test_prompts_are_counted_without_torch(tmp_path):
    shutil.copytree(DEMO / "tokenizer", tmp_path / "tokenizer")
    code = (
        "import sys; from pathlib import Path; from jobs.models.prompt_length import cut_tokens; "
        "from jobs.models.registry import FAMILIES; family = FAMILIES['HunyuanVideoPipeline']; "
        "assert len(cut_tokens(Path(sys.argv[1]), family, None, ['red ' * 300])) == 1; "
        "assert not {'torch', 'ray', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, cwd=ROOT, timeout=60)


def test_shipped_prompts_are_nothing_to_speak_of():
    assert list(notices(read_items(PROMPTS_FILE, DEFAULTS), PROMPTS_FILE, read_facts("demo"))) == []
