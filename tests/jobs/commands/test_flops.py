"""`resca flops`, on the full-size FLUX, which the meta device holds for nothing."""

import json

import pytest

from caching.recipe.recipe import recipe
from jobs.__main__ import main
from jobs.measure.published import published


@pytest.mark.slow
def test_rows_of_a_count(tmp_path, capsys):
    file = tmp_path / "rows.json"
    assert main(f"flops --model flux --methods full,taylorseer --interval 2 --steps 2 --json {file}".split()) == 0
    full, taylorseer = json.loads(file.read_text())
    assert full["tflops"] == pytest.approx(2 * 74.39, rel=1e-3)
    assert (full["flops_ratio"], full["cache_bytes"], full["paper_tflops"]) == (1.0, 0, None)
    assert (taylorseer["dense_steps"], taylorseer["sparse_steps"]) == (1, 1)
    assert 1.9 < taylorseer["flops_ratio"] < 2
    assert taylorseer["cache_bytes"] > 1e9
    assert "taylorseer" in capsys.readouterr().out


def test_published_figures_belong_to_their_settings():
    assert published("flux", recipe("resca", interval=7, clusters=16)) == 675.1
    assert published("flux", recipe("resca", interval=6, clusters=16)) is None
    assert published("hunyuanvideo", recipe("full")) == 29_773.0


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--model fluxx", "unknown model fluxx; known: hunyuanvideo, flux"),
        ("--preset mlperff", "unknown preset mlperff; known: mlperf"),
        ("--preset mlperf --model wan", "--preset mlperf has --model wan2.2, not wan; leave it out"),
        ("--preset mlperf --num-frames 17", "--preset mlperf has --num-frames 81, not 17"),
        ("--model flux --steps 0", "--steps must be at least 1, not 0"),
        ("--height 481", "multiples of 16"),
        ("--methods ,", "names no method"),
        ("--methods fora --clusters 8", "has an option --clusters"),
    ],
)
def test_bad_input_is_one_sentence(arguments, complaint, capsys):
    assert main(["flops", *arguments.split()]) == 2
    assert complaint in capsys.readouterr().err
