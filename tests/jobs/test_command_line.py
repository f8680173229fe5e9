"""The command line: fast help, and one clear sentence with exit code 2 for every kind of bad input."""

import socket
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import pytest

from caching.recipe.recipe import RECIPES
from jobs.__main__ import COMMANDS, main, parse
from jobs.errors import INFRASTRUCTURE, BadInput
from jobs.models.family import Configs
from jobs.models.hunyuan_video import HunyuanVideo
from jobs.options.batch import RenderOptions
from jobs.options.measure import BenchmarkOptions
from jobs.request.gangs import gang_spec, gangs_to_ask_for
from tests.jobs.conftest import complaint, render

ROOT = Path(__file__).parents[2]
HUNYUAN_VIDEO = HunyuanVideo().numbers(Configs())


def test_help_is_answered_without_anything_heavy():
    code = (
        "import sys\ntry:\n    import jobs.__main__ as command; command.main(['render', '--help'])\n"
        "except SystemExit as stop:\n    assert stop.code == 0\n"
        "assert not {'torch', 'ray', 'diffusers', 'transformers', 'numpy', 'pydantic'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for flag in ("PATH", "--interval", "--num-frames", "--save-latents", "--ulysses", "--json"):
        assert flag in done.stdout


def test_flags_have_no_prefixes_and_reach_their_place():
    options = parse(["render", "p.txt", "--out", "o", "--interval", "3", "--save-latents", "--dtype", "bfloat16"])
    assert isinstance(options, RenderOptions)
    assert (options.cache.given(), options.video.dtype) == ({"interval": 3}, "bfloat16")
    assert options.save_latents and options.prompts == Path("p.txt")


def test_benchmark_gives_each_method_the_options_that_it_has():
    options = parse(["benchmark", "--methods", "full, taylorseer,resca", "--interval", "5", "--clusters", "32"])
    assert isinstance(options, BenchmarkOptions)
    given = {name: options.cache_for(name).given() for name in options.method_names()}
    assert given == {"full": {}, "taylorseer": {"interval": 5}, "resca": {"interval": 5, "clusters": 32}}


def test_all_stands_for_every_method_of_ours_beside_files():
    options = parse(["benchmark", "--methods", "all,mine.yaml,full"])
    assert isinstance(options, BenchmarkOptions)
    every = [name for name, method in RECIPES.items() if not method.needs_cross_attention]
    assert options.method_names() == [*every, "mine.yaml"]


def test_benchmark_refuses_an_option_that_no_method_has():
    options = parse(["benchmark", "--methods", "full,fora", "--clusters", "32"])
    assert isinstance(options, BenchmarkOptions)
    with pytest.raises(BadInput, match="none of the methods full,fora has an option --clusters"):
        options.cache_for("full")


PROMPT_FILES = {
    "empty.txt": ("", "empty.txt has no prompts"),
    "broken.jsonl": ('{"prompt": "a"}\n{"prompt"\n', "broken.jsonl, line 2 is not valid JSON"),
    "field.jsonl": ('{"prompt": "a", "colour": 1}\n', "field.jsonl, line 1: unknown field 'colour'"),
    "twice.jsonl": ('{"prompt": "a", "id": "x"}\n{"prompt": "b", "id": "x"}\n', "line 2: duplicate id 'x'"),
    "escape.jsonl": ('{"prompt": "a", "id": "../x"}\n', "id '../x' is not safe in a file name"),
    "method.jsonl": (
        '"a"\n{"prompt": "b", "method": "rescue"}\n',
        "method.jsonl, line 2: unknown method 'rescue'; known",
    ),
    "file.csv": ("prompt,method\na,mine.yaml\n", "file.csv, line 2: method 'mine.yaml' is a file, which only --method"),
    "cross.csv": ("prompt,method\na,t-gate\n", "cross.csv, line 2: t-gate caches cross-attention, which this model"),
    "size.jsonl": ('{"prompt": "a", "height": 60}\n', "line 1: height 60, width 64"),
}


@pytest.mark.parametrize("name", PROMPT_FILES)
def test_bad_prompt_file(place, capsys, name):
    text, what = PROMPT_FILES[name]
    (place / name).write_text(text)
    assert what in complaint(capsys, name)


@pytest.mark.parametrize(
    "arguments, what",
    [
        ("missing.txt", "missing.txt does not exist"),
        ("good.txt --height 60", "nearest: height 64, width 64, num_frames 5"),
        ("good.txt --num-frames 7", "nearest: height 64, width 64, num_frames"),
        ("good.txt --ulysses 3", "heads"),
        (
            "good.txt --method rescue",
            "unknown method 'rescue'; known: full, steps, fora",
        ),
        ("good.txt --method full --clusters 8", "method 'full' has no option 'clusters'"),
        ("good.txt --method resca --clusters 9", "clusters must be a multiple"),
        ("good.txt --method resca --clusters 64", "64 clusters are too many for a video of 32 tokens"),
        ("good.txt --method resca --ring 16", "runs on at most 8 ranks a gang, not on 16; a recipe file may say"),
        ("good.txt --ulysses many", "--ulysses"),
        ("good.txt --ulysses 0", "--ulysses must be at least 1"),
        ("good.txt --sp-engine deepspeed --ring 2", "--sp-engine deepspeed has no Ring: --ring must be 1, not 2"),
        ("good.txt --deadline 0", "--deadline must be at least 1"),
        ("good.txt --interval 0", "interval must be at least 1"),
        ("good.txt --steps 0", "--steps must be at least 1, not 0"),
        ("good.txt --gangs 0", "--gangs must be at least 1"),
        ("good.txt --limit 0", "--limit must be at least 1"),
        ("good.txt --seed -1", "--seed must be between"),
        ("good.txt --guidance nan", "--guidance must be a number"),
        ("good.txt --speed 9", "Unrecognized options: --speed"),
        ("good.txt --steps many", "Error parsing --steps"),
        ("good.txt --dtype int8", "invalid choice 'int8'"),
        ("good.txt --model nowhere", "neither demo nor demo-wan nor demo-dit, nor a directory, nor a hub id"),
        ("good.txt --model good.txt", "is a single file, not a directory with a whole pipeline"),
        ("good.txt --out good.txt", "is not a directory"),
        ("good.txt --out /proc/none", "cannot be written"),
        ("good.txt --json model", "--json model is a directory"),
        ("good.txt --nodes 4xGPU", "such as 4xCPU=96,GPU=8"),
        ("good.txt --env NCCL_DEBUG", "--env NCCL_DEBUG should be NAME=VALUE, such as NCCL_IB_HCA=mlx5"),
        ("good.txt --env A=1 --env 2=x", "--env 2=x should be NAME=VALUE"),
        ("good.txt --env CUDA_VISIBLE_DEVICES=0", "--env CUDA_VISIBLE_DEVICES would give all ranks of a node the same"),
        ("good.txt --env LD_LIBRARY_PATH=/opt", "--env LD_LIBRARY_PATH would be set after it is read: set it where"),
        ("good.txt --cpus-per-rank 0", "--cpus-per-rank must be at least 1"),
        (f"good.txt --out {'x' * 300}", "x/ledger cannot be read: File name too long"),
        (f"good.txt --out new/{'x' * 300}/out", "cannot be written: File name too long"),
        (f"good.txt --json {'x' * 252}", "x cannot be written: File name too long"),
        (f"good.txt --model {'x' * 300}", "neither demo nor demo-wan nor demo-dit, nor a directory, nor a hub id"),
        (f"{'x' * 300}.txt", "File name too long"),
        ("good.txt --out caf\udce9", r"out 'caf\udce9' is not UTF-8; rename it"),
        ("caf\udce9.txt", r"prompts 'caf\udce9.txt' is not UTF-8; rename it"),
    ],
)
def test_bad_option(place, capsys, arguments, what):
    assert what in complaint(capsys, *arguments.split())


def test_what_a_lines_own_method_cannot_do_is_named_with_its_line(place, capsys):
    (place / "p.csv").write_text("prompt,method\na,\nb,full\nc,resca\n")
    told = complaint(capsys, "p.csv", "--ring", "16")
    assert "p.csv, line 4: method resca runs on at most 8 ranks a gang, not on 16" in told


def test_a_current_directory_that_is_no_text_or_gone_is_one_sentence(place, monkeypatch, capsys):
    (place / "caf\udce9").mkdir()
    monkeypatch.chdir(place / "caf\udce9")
    assert main(["status", "out"]) == 2
    assert "is not UTF-8; rename it" in capsys.readouterr().err
    (place / "caf\udce9").rmdir()
    assert main(["status", "out"]) == 2
    assert "the current directory has been removed" in capsys.readouterr().err


def test_an_ffmpeg_that_makes_no_videos_is_found_before_anything_starts(place, capsys, monkeypatch):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "nowhere/ffmpeg")
    assert render("good.txt") == INFRASTRUCTURE
    [sentence] = capsys.readouterr().err.splitlines()
    assert sentence.startswith("resca: no video can be made on this machine: ffmpeg (nowhere/ffmpeg) cannot be run")
    assert not (place / "out").exists()


def test_videos_that_could_not_be_written_are_refused_before_anything_starts(place, capsys):
    (place / "out").mkdir()
    (place / "out" / "videos").symlink_to("/proc/tty")
    assert f"{place / 'out' / 'videos'} cannot be written" in complaint(capsys, "good.txt")


def test_no_command_at_all_is_one_sentence(capsys):
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2
    assert f"Expected one of {{{', '.join(COMMANDS)}}}" in capsys.readouterr().err


def test_every_command_has_its_module():
    for kind, module in COMMANDS.values():
        assert find_spec(module) is not None, kind


def test_the_layout_is_chosen_by_heads_nodes_and_tokens():
    from caching.recipe.recipe import RECIPES

    def chosen(methods="full", tokens=20_400, num_passes=1, cfgs=None, **options):
        given = RenderOptions(prompts=Path("p.txt"), out="out", **options)
        nodes = [{"CPU": 64, "GPU": 8}] * 2
        facts = {"model": HUNYUAN_VIDEO, "tokens": tokens, "num_passes": num_passes}
        facts["methods"] = [RECIPES[name] for name in methods.split()]
        layout, spec = gang_spec(given, nodes=nodes, **facts)
        assert (spec.world_size, spec.together) == (layout.world_size, layout.ulysses)
        assert layout.cfg == (cfgs or (1 if options.get("cfg") is None else num_passes))
        return layout.ulysses, layout.ring, spec.num_cpus_per_rank

    assert chosen(ulysses="auto", ring="auto") == (8, 2, 8)
    assert chosen(ulysses="auto", ring="auto", gangs=4) == (4, 1, 8)
    assert chosen(ulysses="auto") == (8, 1, 8)
    assert chosen(ulysses=4, ring="auto") == (4, 4, 8)
    assert chosen("resca", ulysses="auto", ring="auto") == (8, 1, 8)  # by its 8 logical shards
    assert chosen(ulysses="auto", ring="auto", tokens=800) == (3, 1, 21)
    # Dense steps of a small video would be shorter on 8 GPUs than the passes of proxies, which stay as they are.
    assert chosen("resca", ulysses="auto", tokens=2048) == (1, 1, 64)
    assert chosen("auto", ulysses="auto", tokens=2048) == (8, 1, 8)
    assert chosen("resca", ulysses=8, tokens=2048) == (8, 1, 8)
    # What the most restrictive of several methods leaves.
    assert chosen("full resca", ulysses="auto", ring="auto") == chosen("resca full", ulysses="auto", ring="auto")
    assert chosen("full resca", ulysses="auto", ring="auto") == (8, 1, 8)
    assert chosen("auto resca", ulysses="auto", tokens=2048) == (1, 1, 64)
    assert chosen(cfg="auto", ulysses="auto", ring="auto", num_passes=2) == (8, 1, 8)
    assert chosen(cfg="auto", ulysses="auto", ring="auto") == (8, 2, 8)
    assert chosen(cfg="auto", ulysses="auto", gangs=4, num_passes=2) == (2, 1, 8)
    assert chosen("t-gate", cfg="auto", ulysses="auto", num_passes=2, cfgs=1) == (8, 1, 8)  # one pass after the gate
    assert chosen("full t-gate", cfg="auto", ulysses="auto", num_passes=2, cfgs=1) == (8, 1, 8)
    assert chosen("t-gate", cfg="auto", ulysses=4, num_passes=2, cfgs=2) == (4, 1, 16)
    with pytest.raises(BadInput, match="room for 16 ranks"):
        chosen(ulysses=4, ring=8)
    with pytest.raises(BadInput, match="fits 9 times on nodes with room for 8, 8 ranks"):
        chosen(ulysses=2, ring="auto", gangs=9)


def test_ranks_get_variables_and_timeouts_as_given(place):
    from caching.recipe.recipe import RECIPES

    words = ["--env", "NCCL_IB_HCA=mlx5", "--env", "A=b=c", "--env", "EMPTY=", "--start-timeout", "1200"]
    given = parse(["render", "good.txt", "--out", "out", *words, "--deadline", "60"])
    _, spec = gang_spec(given, model=HUNYUAN_VIDEO, tokens=32, methods=[RECIPES["full"]], nodes=[{"CPU": 2}])
    assert spec.env == {"NCCL_IB_HCA": "mlx5", "A": "b=c", "EMPTY": ""}
    assert (spec.start_timeout_s, spec.collective_timeout_s) == (1200, 60)


def test_nodes_that_are_to_come_count_as_if_they_were_there():
    from caching.recipe.recipe import RECIPES

    given = RenderOptions(prompts=Path("p.txt"), out="out", nodes="3xCPU=96,GPU=8", ulysses=4, gangs="auto")
    layout, spec = gang_spec(given, model=HUNYUAN_VIDEO, tokens=20_400, methods=[RECIPES["full"]])
    assert (layout.ulysses, spec.num_gpus_per_rank, spec.num_cpus_per_rank) == (4, 1, 12)
    assert gangs_to_ask_for(given, spec) == 6
    assert gangs_to_ask_for(replace(given, nodes=None), spec) is None
    _, spec = gang_spec(replace(given, cpus_per_rank=5), model=HUNYUAN_VIDEO, tokens=20_400, methods=[RECIPES["full"]])
    assert spec.num_cpus_per_rank == 5
    with pytest.raises(BadInput, match="asked for 312 CPUs"):
        gang_spec(replace(given, cpus_per_rank=13), model=HUNYUAN_VIDEO, tokens=20_400, methods=[RECIPES["full"]])


@pytest.mark.timeout(120)
def test_more_ranks_than_the_cluster_has_names_asked_and_available(place, capsys):
    sentence = complaint(capsys, "good.txt", "--method", "full", "--ulysses", "2", "--gangs", "4000")
    assert "asked for 8000 CPUs" in sentence and "the cluster has" in sentence


@pytest.mark.timeout(60)
def test_cluster_that_does_not_answer_is_infrastructure(place, capsys):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        assert render("good.txt", "--address", f"127.0.0.1:{unused.getsockname()[1]}") == 33
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (place / "out").exists()


@pytest.mark.timeout(60)
def test_malformed_cluster_address_is_bad_input(place, capsys):
    assert "nonsense" in complaint(capsys, "good.txt", "--address", "nonsense")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["status", "nothing", "--json", "."], "--json . is a directory; name a file"),
        (["benchmark", "--report", "good.txt"], "good.txt is not a directory"),
        (["tune", "--target", "psnr=40", "--out", "."], "--out . is a directory; name a file"),
    ],
)
def test_results_that_could_not_be_written_are_refused_before_any_work(place, capsys, words, told):
    assert main(words) == 2
    assert told in capsys.readouterr().err


def test_the_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"resca {version('resca-render')}\n"


def test_a_current_directory_that_is_gone_is_one_sentence(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["status", str(tmp_path)]) == 2
    assert capsys.readouterr().err == (
        "resca: the current directory has been removed; change to another one (cd) and try again\n"
    )
