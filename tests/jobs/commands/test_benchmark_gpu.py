"""`resca benchmark gpu`, for real, on a model of three narrow layers and without a GPU."""

import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from caching.flops import MetaLoop, count
from caching.recipe.recipe import recipe
from jobs.__main__ import main, parse
from jobs.measure.full_size import DTYPE
from jobs.measure.gpu import bench, timing
from jobs.measure.gpu.bench import Bench
from jobs.measure.gpu.model import SMALL, random_transformer
from jobs.measure.gpu.rivals import PLAIN, RIVALS
from jobs.measure.gpu.timing import Step, Timing, matmul_flops_per_s, steps_to_run, warm_up
from jobs.options.gpu import GpuOptions
from jobs.options.measure import BenchmarkOptions

ROOT = Path(__file__).parents[3]
STEPS = 14
METHODS = ("full", "resca", "auto", "taylorseer", "taylorseer:output", "teacache")
PEERS = [name for name in (PLAIN, "diffusers-taylorseer", "cache-dit-dbcache-taylorseer") if RIVALS[name].available]
SMALLEST = ["benchmark", "gpu", "--model", "small", "--attention", "none", "--peers", "none", "--compile", "off"]


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """Where a run of everything but compilation has left its report."""
    directory = tmp_path_factory.mktemp("gpu")
    arguments = ["--steps", str(STEPS), "--compile", "off", "--peers", ",".join(PEERS), "--report", str(directory)]
    assert main(["benchmark", "gpu", "--model", "small", *arguments]) == 0
    return directory


@pytest.fixture
def rows(report) -> list[dict]:
    return json.loads((report / "rows.json").read_text())


def of_methods(rows: list[dict]) -> list[dict]:
    return [row for row in rows if row["method"] in METHODS and row["status"] == "ok"]


def test_every_contestant_has_a_row_and_what_matters_most_comes_first(rows):
    plain = [(row["size"], row["method"]) for row in rows if row["attention"] == "default"]
    core = product(("64x96x13", "64x64x13"), ("full", "resca", "auto"))
    assert plain == [*core, *(("64x96x13", name) for name in (*METHODS[3:], *PEERS))]
    kernels = [row for row in rows if row["attention"] != "default"]
    assert [row["attention"] for row in kernels] == ["flash", "cudnn", "efficient"]
    assert {row["method"] for row in kernels} == {"full"}
    assert all(row["status"] == "ok" or "attention does not work on" in row["status"] for row in kernels)


def test_flops_are_those_that_are_counted_without_weights(rows):
    for row in of_methods(rows):
        name, _, feature = row["method"].partition(":")
        grid = (4, 4, 6) if row["size"] == "64x96x13" else (4, 4, 4)
        settings = dict(grid=grid, num_text_tokens=SMALL.num_text_tokens, num_steps=STEPS, dtype=DTYPE)
        cost = count(SMALL.config, recipe(name, feature=feature or None), **settings)
        full = count(SMALL.config, recipe("full"), **settings)
        assert row["tflops"] == pytest.approx(cost.flops / 1e12)
        assert row["flops_ratio"] == pytest.approx(full.flops / cost.flops)
        assert (row["dense_steps"], row["sparse_steps"]) == (cost.dense_steps, cost.sparse_steps)


def test_a_loop_is_put_together_from_its_steps(rows):
    for row in of_methods(rows):
        assert row["dense_steps"] + row["sparse_steps"] == STEPS and row["loop_is"] == "derived"
        seconds = row["dense_steps"] * row["dense_s"] + row["sparse_steps"] * (row["sparse_s"] or 0)
        assert row["loop_s"] == pytest.approx(seconds)
        assert row["realised"] == pytest.approx(row["speedup"] / row["flops_ratio"])
        assert row["timed_dense"] >= 2 and (row["timed_sparse"] >= 4 or row["method"] == "full")
        assert (row["clustering_s"] is not None) == (row["method"] == "resca")


def test_the_loop_of_a_peer_is_measured_whole_but_that_of_the_plain_pipeline(rows):
    peers = {row["method"]: row for row in rows if row["method"] in PEERS}
    assert {name: row["loop_is"] for name, row in peers.items()} == {
        name: "derived" if name == PLAIN else "measured" for name in PEERS
    }
    assert all(row["dense_steps"] + row["sparse_steps"] == STEPS for row in peers.values())
    taylorseer = peers["diffusers-taylorseer"]
    assert taylorseer["sparse_steps"] > 0 and taylorseer["timed_sparse"] == taylorseer["sparse_steps"]


def test_mfu_is_relative_to_the_matrix_product_of_the_same_run(report, rows):
    about = json.loads((report / "about.json").read_text())
    assert {"command", "versions", "machine", "device", "attention", "parameters"} <= set(about)
    full = rows[0]
    step_flops = full["tflops"] * 1e12 / STEPS
    assert full["mfu"] == pytest.approx(step_flops / full["dense_s"] / about["matmul_flops_per_s"])


def test_the_report_is_a_table_that_says_what_is_derived(report, rows):
    page = (report / "report.md").read_text()
    assert page.count("| derived |") + page.count("| measured |") == sum(row["status"] == "ok" for row in rows)
    table = [line for line in page.splitlines() if line.startswith("| ")]
    assert len(table) == 2 + len(rows) and len({line.count("|") for line in table}) == 1


@pytest.mark.slow
def test_it_needs_neither_ray_nor_much_else(tmp_path):
    absent = (
        "ray xfuser deepspeed transformers peft accelerate torchmetrics imageio imageio_ffmpeg matplotlib cache_dit"
    )
    arguments = [*SMALLEST, "--steps", "8", "--methods", "full,resca", "--json", str(tmp_path / "rows.json")]
    code = (
        f"import sys\nsys.modules.update(dict.fromkeys({absent.split()!r}))\n"
        f"from jobs.__main__ import main\nsys.exit(main({arguments!r}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert [row["status"] for row in rows] == ["ok"] * 4


@pytest.mark.slow
def test_compiled_blocks_are_measured_beside_the_others(tmp_path, monkeypatch):
    monkeypatch.setattr(bench, "COMPILER", "eager")
    file = tmp_path / "rows.json"
    arguments = ["--methods", "full,resca,auto", "--sizes", "64x64x13", "--steps", "8", "--json", str(file)]
    assert main([*SMALLEST, *arguments, "--compile", "both"]) == 0
    settings = [(row["method"], row["compiled"], row["status"]) for row in json.loads(file.read_text())]
    eager = [(name, False, "ok") for name in ("full", "resca", "auto")]
    assert settings == [*eager, ("full", True, "ok"), ("resca", True, "ok")]


def test_without_memory_or_by_ctrl_c_only_what_it_struck_is_missing(tmp_path, monkeypatch):
    whole = Bench.measure

    def measure(self, contestant):
        if contestant.name == "resca":
            raise torch.OutOfMemoryError("tried to allocate 677 GiB")
        if contestant.name == "fora":
            raise KeyboardInterrupt
        return whole(self, contestant)

    monkeypatch.setattr(Bench, "measure", measure)
    methods = ["--methods", "resca,auto,full,fora,taylorseer", "--sizes", "64x64x13", "--steps", "4"]
    assert main([*SMALLEST, *methods, "--report", str(tmp_path)]) == 130
    status = {row["method"]: row["status"] for row in json.loads((tmp_path / "rows.json").read_text())}
    stopped = dict.fromkeys(("fora", "taylorseer"), "not run: stopped")
    assert status == {"full": "ok", "resca": "out of memory", "auto": "ok"} | stopped


def test_flops_are_counted_when_all_is_timed_and_ctrl_c_leaves_what_was_timed(tmp_path, monkeypatch):
    order, time_one, run = [], Bench.measure, MetaLoop.run

    def measure(self, case):
        order.append("timed")
        return time_one(self, case)

    def run_without_values(self, first, length):
        order.append("counted")
        if order.count("counted") == 3:
            raise KeyboardInterrupt
        run(self, first, length)

    monkeypatch.setattr(Bench, "measure", measure)
    monkeypatch.setattr(MetaLoop, "run", run_without_values)
    arguments = ["--methods", "full,auto", "--sizes", "64x80x13", "--steps", "7", "--report", str(tmp_path)]
    assert main([*SMALLEST, *arguments]) == 130
    assert order == ["timed", "timed", "counted", "counted", "counted"]
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert all(row["loop_s"] and row["speedup"] and "tflops" not in row for row in rows)


def test_what_no_longer_fits_is_listed_as_not_run(tmp_path):
    file = tmp_path / "rows.json"
    assert main([*SMALLEST, "--minutes", "1e-6", "--methods", "full,fora", "--json", str(file)]) == 0
    assert {row["status"] for row in json.loads(file.read_text())} == {"not run: no time left"}


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("--model small --methods rescue", "unknown method 'rescue'; known: full"),
        ("--model small --methods taylorseer:all", "unknown feature 'all'"),
        ("--model small --methods ,", "--methods names nothing"),
        ("--model small --sizes 480x640", "HEIGHTxWIDTHxFRAMES, such as 480x640x65, not 480x640"),
        ("--model small --sizes 481x640x65", "height and width must be multiples of 16"),
        ("--model small --attention fast", "unknown attention kernel fast; known: flash"),
        ("--model small --peers unipc-9", "unknown peer unipc-9; known: diffusers"),
        ("--model small --steps 0", "--steps must be above 0, not 0"),
        ("--model small --minutes 0", "--minutes must be above 0"),
        pytest.param(
            "", "needs a GPU", marks=pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU to use")
        ),
    ],
)
def test_bad_input_is_one_sentence(arguments, complaint, capsys):
    assert main(["benchmark", "gpu", *arguments.split()]) == 2
    captured = capsys.readouterr()
    assert complaint in captured.err and len(captured.err.splitlines()) == 1 and not captured.out


def test_the_second_word_makes_it_another_command():
    assert isinstance(parse(["benchmark", "gpu", "--steps", "9"]), GpuOptions)
    assert isinstance(parse(["benchmark", "--num", "9"]), BenchmarkOptions)


def test_warm_up_lasts_until_the_second_dense_step():
    interval = [step % 6 == 0 for step in range(50)]
    assert [warm_up(interval), warm_up(interval, rounds=2), warm_up([True] * 50), warm_up([True, False])] == [
        6,
        12,
        1,
        1,
    ]


def test_steps_run_until_both_kinds_were_seen_and_the_sparse_ones_are_through():
    interval = [step % 6 == 0 for step in range(50)]
    assert steps_to_run(interval, 6, dense=1, sparse=1) == 12
    assert steps_to_run(interval, 6, dense=3, sparse=3) == 24
    assert steps_to_run([True] * 50, 1, dense=3, sparse=3) == 4
    assert steps_to_run([True], 1, dense=3, sparse=3) == 1
    gate = [step < 20 for step in range(50)]
    assert 20 < steps_to_run(gate, 1, dense=3, sparse=3) < 35


def test_sparse_steps_that_take_turns_are_averaged_and_outliers_left_out():
    seconds = [9.0, 9.0, 9.0, 4.0, 0.1, 0.3, 4.0, 0.1, 0.3, 4.0, 7.0, 0.3]
    steps = tuple(Step(dense=place % 3 == 0, seconds=each) for place, each in enumerate(seconds))
    timing = Timing(steps=steps, num_warm_up=3)
    assert timing.step_s(dense=True) == 4.0
    assert timing.step_s(dense=False) == pytest.approx(0.2)
    assert (timing.num_measured(dense=True), timing.num_measured(dense=False)) == (3, 6)


def test_the_matrix_product_is_repeated_for_a_while():
    cpu = torch.device("cpu")
    with FlopCounterMode(display=False) as counter:
        rate = matmul_flops_per_s(cpu)
    product = 2 * timing.MATMUL_SIDE["cpu"] ** 3
    measured = counter.get_total_flops() - timing.MATMUL_REPEATS * product  # but for the warm-up
    assert measured / rate >= timing.MATMUL_S["cpu"] and timing.MATMUL_S["cuda"] == 1.0


def test_weights_are_random_and_in_bfloat16():
    for name, parameter in random_transformer(SMALL.config, torch.device("cpu")).named_parameters():
        assert parameter.dtype == torch.bfloat16 and parameter.isfinite().all(), name
        assert parameter.ndim < 2 or 0.01 < parameter.float().std() < 0.03, name
