"""What was measured of each method or peer, as rows of a table."""

import statistics
from collections.abc import Sequence
from typing import TypedDict

from jobs.measure.contest import Tally


class BenchmarkRow(TypedDict):
    """One row a method or peer; None is what is not known of it."""

    method: str
    dense_steps: float | None  # of a mean video, as all that follows
    sparse_steps: float | None
    seconds: float
    seconds_min: float
    seconds_max: float
    speedup: float | None
    tflops: float
    flops_ratio: float
    psnr_db: float | None
    psnr_db_tenth: float | None
    psnr_db_min: float | None
    ssim: float | None
    lpips: float | None
    oracle: float | None
    cache_bytes: int | None
    peak_bytes: int
    num: int
    recipe: dict[str, object]


def make_rows(tallies: list[Tally]) -> list[BenchmarkRow]:
    """One row a method: medians of seconds, means of fidelity, and ratios to full sampling."""
    full = next((tally for tally in tallies if tally.is_full), None)
    return [_row(tally, statistics.median(full.seconds) if full else None) for tally in tallies]


def _row(tally: Tally, full_seconds: float | None) -> BenchmarkRow:
    seconds, runs = statistics.median(tally.seconds), tally.runs
    return {
        "method": tally.contestant.name,
        "dense_steps": _mean([run.dense_steps for run in runs]),
        "sparse_steps": _mean([run.sparse_steps for run in runs]),
        "seconds": round(seconds, 4),
        "seconds_min": round(min(tally.seconds), 4),
        "seconds_max": round(max(tally.seconds), 4),
        "speedup": round(full_seconds / seconds, 3) if full_seconds else None,
        "tflops": round(statistics.mean(run.flops / 1e12 for run in runs), 4),
        "flops_ratio": round(sum(run.flops_full for run in runs) / sum(run.flops for run in runs), 3),
        "psnr_db": _mean(tally.psnr_db),
        "psnr_db_tenth": _tenth(tally.psnr_db),
        "psnr_db_min": min(tally.psnr_db, default=None),
        "ssim": _mean(tally.ssim),
        "lpips": _mean(tally.lpips),
        "oracle": _mean([float(seen) for seen in tally.oracle if seen is not None]),
        "cache_bytes": max((run.cache_bytes for run in runs if run.cache_bytes is not None), default=None),
        "peak_bytes": max(run.peak_bytes for run in runs),
        "num": len(runs),
        "recipe": tally.contestant.describe(),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean, an integer where it is one; None if anything is not known."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    mean = round(statistics.mean(known), 4)
    return int(mean) if all(isinstance(value, int) for value in known) and mean == int(mean) else mean


def _tenth(values: Sequence[float]) -> float | None:
    """What one in ten is below; None for fewer than two."""
    return statistics.quantiles(values, n=10, method="inclusive")[0] if len(values) > 1 else None
