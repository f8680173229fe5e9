"""What was measured of each case, as rows of a table."""

from dataclasses import dataclass
from typing import NotRequired, TypedDict

from jobs.measure.gpu.cases import Case
from jobs.measure.gpu.timing import Timing

OK = "ok"


class CaseRow(TypedDict):
    """One row a case; None is what is not known of it. Only a case that was timed has more than its settings.

    The last four of these are there once its FLOPs have been counted.
    """

    size: str
    method: str
    attention: str
    compiled: bool
    status: str
    dense_steps: NotRequired[int | None]
    sparse_steps: NotRequired[int | None]
    timed_dense: NotRequired[int]
    timed_sparse: NotRequired[int]
    dense_s: NotRequired[float | None]
    sparse_s: NotRequired[float | None]
    clustering_s: NotRequired[float | None]
    first_step_s: NotRequired[float]
    loop_s: NotRequired[float | None]
    loop_is: NotRequired[str | None]
    speedup: NotRequired[float | None]
    peak_bytes: NotRequired[int | None]
    cache_bytes: NotRequired[int | None]
    tflops: NotRequired[float | None]
    flops_ratio: NotRequired[float | None]
    realised: NotRequired[float | None]
    mfu: NotRequired[float | None]


@dataclass(frozen=True, kw_only=True)
class Yardstick:
    """What FLOPs are compared with."""

    num_steps: int  # of full sampling
    step_flops: float  # of one of its steps
    matmul_flops_per_s: float


@dataclass(frozen=True, kw_only=True)
class Loop:
    """A whole denoising loop, run to its end or put together from the times of its steps; None if neither can be."""

    dense_steps: int | None = None
    sparse_steps: int | None = None
    seconds: float | None = None
    origin: str | None = None


def loop_of(timing: Timing, dense_steps: int, sparse_steps: int) -> Loop:
    """The loop with so many steps of each kind."""
    kinds = ((dense_steps, timing.step_s(dense=True)), (sparse_steps, timing.step_s(dense=False)))
    seconds = sum(number * (each or 0.0) for number, each in kinds)
    return Loop(dense_steps=dense_steps, sparse_steps=sparse_steps, seconds=seconds, origin="derived")


def loop_run(timing: Timing, num_steps: int) -> Loop:
    """The loop itself, if all of it was run."""
    if len(timing.steps) < num_steps:
        return Loop()
    dense = sum(step.dense for step in timing.steps)
    return Loop(dense_steps=dense, sparse_steps=num_steps - dense, seconds=timing.total_s, origin="measured")


def bare_row(case: Case, status: str) -> CaseRow:
    """The row of a case without times, with the reason."""
    return {
        "size": case.video.name,
        "method": case.name,
        "attention": case.attention,
        "compiled": case.compiled,
        "status": status,
    }


def make_row(case: Case, timing: Timing, loop: Loop, *, num_steps: int, full_loop_s: float | None) -> CaseRow:
    """Everything known of a case but its FLOPs, of `num_steps` in full; `full_loop_s` is None until full was timed."""
    stopped = f"stopped after {len(timing.steps)} of {num_steps} steps, {timing.total_s:.0f} s"
    return {
        **bare_row(case, OK if loop.seconds else stopped),
        "dense_steps": loop.dense_steps,
        "sparse_steps": loop.sparse_steps,
        "timed_dense": timing.num_measured(dense=True),
        "timed_sparse": timing.num_measured(dense=False),
        "dense_s": timing.step_s(dense=True),
        "sparse_s": timing.step_s(dense=False),
        "clustering_s": timing.clustering_s,
        "first_step_s": timing.steps[0].seconds,
        "loop_s": loop.seconds,
        "loop_is": loop.origin,
        "speedup": full_loop_s / loop.seconds if full_loop_s and loop.seconds else None,
        "peak_bytes": timing.peak_bytes,
        "cache_bytes": timing.cache_bytes,
    }


def add_flops(row: CaseRow, flops: float | None, yardstick: Yardstick) -> CaseRow:
    """The row of a case that was timed with all that takes its FLOPs, which are not known of a peer."""
    dense_s, speedup = row.get("dense_s"), row.get("speedup")
    flops_ratio = yardstick.num_steps * yardstick.step_flops / flops if flops else None
    return {
        **row,
        "tflops": flops / 1e12 if flops else None,
        "flops_ratio": flops_ratio,
        "realised": speedup / flops_ratio if speedup and flops_ratio else None,
        "mfu": yardstick.step_flops / dense_s / yardstick.matmul_flops_per_s if dense_s else None,
    }
