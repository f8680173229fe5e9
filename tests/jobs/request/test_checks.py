"""Numbers that no video, layout or measurement can have are refused at once, in one sentence."""

from pathlib import Path

import pytest

from jobs.__main__ import main
from tests.jobs.models.test_facts import make_model

pytestmark = pytest.mark.timeout(60)
PLAN = ["plan", "--model", "model", "--out", "out"]


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """A directory with a model and a good prompt file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    make_model(tmp_path / "model", {"num_attention_heads": 4}, height=64, width=64, num_frames=5, fps=8, steps=12)
    (tmp_path / "good.txt").write_text("a red ball\n")
    return tmp_path


@pytest.mark.parametrize(
    "arguments, what",
    [
        ("good.txt --steps 1000000000", "--steps must be at most 10000, not 1000000000"),
        ("good.txt --height 1000000000", "--height must be at most 16384"),
        ("good.txt --num-frames 1000000001", "--num-frames must be at most 100000"),
        ("good.txt --fps 1000000000", "--fps must be at most 1000"),
        ("good.txt --height 16384 --width 16384 --num-frames 4097", "tokens, more than the 16777216 that a video may"),
        ("good.txt --deadline 1000000000000000000000", "--deadline must be at most 10000000"),
        ("good.txt --start-timeout 1000000000000", "--start-timeout must be at most 10000000"),
        ("good.txt --start-timeout 0", "--start-timeout must be at least 1, not 0"),
        ("good.txt --tries 2000", "--tries must be at most 1000"),
        ("good.txt --gangs 1000000000", "--gangs must be at most 100000"),
        ("good.txt --keep-warm 0", "--keep-warm must be above 0 and at most 10080 minutes, not 0"),
        ("good.txt --keep-warm nan", "--keep-warm must be above 0 and at most 10080 minutes, not nan"),
        ("good.txt --keep-warm 1e9", "--keep-warm must be above 0 and at most 10080 minutes, not 1e+09"),
        ("good.txt --keep-warm 5 --priority 0", "--priority must be between 0.01 and 100, not 0"),
        ("good.txt --keep-warm 5 --priority nan", "--priority must be between 0.01 and 100, not nan"),
        ("good.txt --priority 2", "--priority is among batches that share gangs: it needs --keep-warm"),
        ("good.txt --nodes 1000000000xCPU=1", "--nodes 1000000000xCPU=1 is more than 4096 nodes of 4096 CPUs or GPUs"),
        ("good.txt --nodes 1xCPU=1000000000", "is more than 4096 nodes of 4096 CPUs or GPUs each"),
    ],
)
def test_a_number_far_above_what_can_be_is_named_with_the_most(place, capsys, arguments, what):
    assert main([*PLAN, *arguments.split()]) == 2
    assert what in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments, what",
    [
        ("--attention fast", "--attention fast: unknown attention kernel fast; known: auto, flash, cudnn"),
        ("--attention flash:3", "flash attention is exact in every step; leave out :3"),
        ("--attention sage:no", "whole number above 0, as in sage:5"),
        ("--attention sdpa --ring auto", "sdpa attention does not give the log-sum-exp by which Ring merges"),
        ("--attention flash3 --nodes 1xCPU=2", "--attention flash3 is a kernel for GPUs, of which there is none"),
    ],
)
def test_an_attention_kernel_that_cannot_be_used_is_refused(place, capsys, arguments, what):
    assert main([*PLAN, "good.txt", *arguments.split()]) == 2
    said = capsys.readouterr().err
    assert what in said and len(said.splitlines()) == 1


@pytest.mark.parametrize("field, most", [("steps", 10_000), ("height", 16_384), ("num_frames", 100_000)])
def test_a_number_in_a_line_that_no_video_can_have_is_named_with_its_line(place, capsys, field, most):
    (place / "typo.jsonl").write_text(f'{{"prompt": "a", "{field}": 1000000000}}\n')
    assert main([*PLAN, "typo.jsonl"]) == 2
    said = capsys.readouterr().err
    assert f"typo.jsonl, line 1: {field} 1000000000" in said and f"less than or equal to {most}" in said


def test_a_models_own_default_is_bounded_as_well(place, capsys):
    (place / "model" / "resca.json").write_text('{"steps": 1000000000}')
    assert main([*PLAN, "good.txt"]) == 2
    assert "steps: Input should be less than or equal to 10000" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, what",
    [
        ("flops --steps 1000000000", "--steps must be at most 10000"),
        ("benchmark --num 1000000000", "--num must be at most 100000"),
        ("tune --target psnr=40 --num 0", "--num must be at least 1, not 0"),
        ("scaling --rounds 1000000000", "--rounds must be at most 100000"),
        ("benchmark overhead --num 2", "--num must be at least 3, not 2"),
        ("benchmark driver --gangs two", "--gangs takes numbers, separated by commas, not two"),
        ("benchmark driver --gangs 8,0", "--gangs must be at least 1, not 0"),
        ("benchmark driver --seconds 10", "--seconds must be at least 60, not 10"),
        ("benchmark gpu --model small --steps 1000000000", "--steps must be at most 10000"),
        ("benchmark --attention fast", "--attention fast: unknown attention kernel fast"),
        ("benchmark --attention math,cudnn", "cudnn attention does not work on cpu in float32"),
        ("benchmark gpu --model small --minutes nan", "--minutes must be above 0"),
    ],
)
def test_measurements_refuse_numbers_that_would_never_end(place, capsys, words, what):
    assert main(words.split()) == 2
    assert what in capsys.readouterr().err
