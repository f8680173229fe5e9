"""`resca benchmark gpu`: seconds of dense and sparse steps at full size, in a few minutes.

python -m jobs benchmark gpu --report out/gpu
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console

from jobs.console import make_console, print_rows, write_rows
from jobs.errors import DONE, INTERRUPTED, BadInput
from jobs.machine import describe_run
from jobs.measure.gpu.cases import Case, read_cases
from jobs.measure.gpu.contest import GpuContest
from jobs.measure.gpu.model import BENCHMARKED
from jobs.measure.gpu.report import readable, write_report
from jobs.measure.gpu.rows import Row, bare_row
from jobs.measure.gpu.timing import MATMUL_SIDE, Budget
from jobs.options.gpu import GpuOptions


def run(options: GpuOptions) -> int:
    """Measure what there is time for and print one row each. Raises BadInput before anything is made."""
    cases = read_cases(options)
    if options.model != "small" and not torch.cuda.is_available():
        raise BadInput("the 13 B transformer needs a GPU, and PyTorch sees none here; --model small does without")
    budget, progress = Budget(options.minutes), Console(stderr=True, highlight=False, markup=False)
    with progress.status("making random weights"):
        contest = GpuContest(
            BENCHMARKED[options.model], num_steps=options.steps, repeats=options.repeats, budget=budget
        )
    about = _about(contest)

    def keep(rows: list[Row]) -> None:
        if options.json:
            write_rows(options.json, rows)
        if options.report:
            write_report(options.report, rows, about)

    rows = _play_all(contest, cases, progress, keep)
    waiting = [bare_row(case, "not run: stopped") for case in cases[len(rows) :]]
    keep([*rows, *waiting])
    console = make_console()
    print_rows(console, [readable(row) for row in (*rows, *waiting)])
    console.print(f"bfloat16 matrix product: {about['matmul']}", soft_wrap=True)
    return INTERRUPTED if waiting else DONE


def _play_all(
    contest: GpuContest, cases: list[Case], progress: Console, keep: Callable[[list[Row]], None]
) -> list[Row]:
    """The rows of all cases, or of those before Ctrl-C; they are kept after each, should the job be killed."""
    rows: list[Row] = []
    try:
        for case in cases:
            with progress.status(case.title):
                rows.append(contest.play(case))
            keep(rows)
            progress.print(f"{len(rows)}/{len(cases)}: {case.title}: {_told(rows[-1])}", soft_wrap=True)
    except KeyboardInterrupt:
        progress.print(f"stopped: {len(rows)} of {len(cases)} were measured")
    return rows


def _told(row: Row) -> str:
    """A row in a few words."""
    if not row.get("dense_s"):
        return row["status"]
    sparse = f", sparse {row['sparse_s']:.4g} s" if row["sparse_s"] else ""
    return f"dense {row['dense_s']:.4g} s{sparse}"


def _about(contest: GpuContest) -> dict[str, Any]:
    side = MATMUL_SIDE[contest.bench.device.type]
    return {
        **describe_run(sys.argv[1:]),
        "device": contest.bench.device.type,
        "cuda": torch.version.cuda,
        "matmul": f"{contest.matmul_flops_per_s / 1e12:.4g} TFLOP/s at {side} x {side} x {side}",
        "matmul_flops_per_s": contest.matmul_flops_per_s,
        "parameters": sum(parameter.numel() for parameter in contest.bench.transformer.parameters()),
    }
