"""One case after another, for which what is known so far is kept on disk; Ctrl-C ends it with what there is."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from rich.console import Console

from jobs.console import make_console, write_rows
from jobs.errors import BadInput
from jobs.measure.gpu.cases import Case, read_cases
from jobs.measure.gpu.contest import GpuContest
from jobs.measure.gpu.model import BENCHMARKED
from jobs.measure.gpu.report import About, write_report
from jobs.measure.gpu.rows import CaseRow, bare_row
from jobs.measure.gpu.timing import MATMUL_SIDE, Budget
from jobs.options.gpu import GpuOptions


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A row a case, how they were measured, and whether Ctrl-C came before the end."""

    rows: list[CaseRow]
    about: About
    stopped: bool


def measure(options: GpuOptions, run: dict[str, str]) -> Measured:
    """Measure what there is time for and keep it where the options say; `run` is the command, machine and versions.

    Raises BadInput before anything is made.
    """
    cases = read_cases(options)
    if options.model != "small" and not torch.cuda.is_available():
        raise BadInput("the 13 B transformer needs a GPU, and PyTorch sees none here; --model small does without")
    budget, progress = Budget(options.minutes), make_console(stderr=True)
    with progress.status("making random weights"):
        model = BENCHMARKED[options.model]
        contest = GpuContest(model, num_steps=options.steps, repeats=options.repeats, budget=budget)
    about: About = {**run, **_about(contest)}

    def keep(rows: list[CaseRow]) -> None:
        if options.json:
            write_rows(options.json, rows)
        if options.report:
            write_report(options.report, rows, about)

    rows = _play_all(contest, cases, progress, keep)
    waiting = [bare_row(case, "not run: stopped") for case in cases[len(rows) :]]
    counted = _count_all(contest, cases, [*rows, *waiting], progress)
    rows = counted or [*rows, *waiting]
    keep(rows)
    return Measured(rows=rows, about=about, stopped=bool(waiting) or counted is None)


def _play_all(
    contest: GpuContest, cases: list[Case], progress: Console, keep: Callable[[list[CaseRow]], None]
) -> list[CaseRow]:
    """The rows of all cases, or of those before Ctrl-C; they are kept after each, should the job be killed."""
    rows: list[CaseRow] = []
    try:
        for case in cases:
            with progress.status(case.title):
                rows.append(contest.play(case))
            keep(rows)
            progress.print(f"{len(rows)}/{len(cases)}: {case.title}: {_told(rows[-1])}", soft_wrap=True)
    except KeyboardInterrupt:
        progress.print(f"stopped: {len(rows)} of {len(cases)} were measured")
    return rows


def _count_all(contest: GpuContest, cases: list[Case], rows: list[CaseRow], progress: Console) -> list[CaseRow] | None:
    """The rows with their FLOPs; None if Ctrl-C came before the last."""
    try:
        with progress.status("counting FLOPs"):
            return [contest.count(case, row) for case, row in zip(cases, rows, strict=True)]
    except KeyboardInterrupt:
        progress.print("stopped: FLOPs were not counted")
        return None


def _told(row: CaseRow) -> str:
    """A row in a few words."""
    dense_s, sparse_s = row.get("dense_s"), row.get("sparse_s")
    if not dense_s:
        return row["status"]
    return f"dense {dense_s:.4g} s" + (f", sparse {sparse_s:.4g} s" if sparse_s else "")


def _about(contest: GpuContest) -> About:
    side = MATMUL_SIDE[contest.bench.device.type]
    return {
        "device": contest.bench.device.type,
        "cuda": torch.version.cuda,
        "attention": contest.kernel,
        "matmul": f"{contest.matmul_flops_per_s / 1e12:.4g} TFLOP/s at {side} x {side} x {side}",
        "matmul_flops_per_s": contest.matmul_flops_per_s,
        "parameters": sum(parameter.numel() for parameter in contest.bench.transformer.parameters()),
    }
