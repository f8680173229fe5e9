"""A benchmark's report."""

import csv

import imageio.v3 as imageio
import numpy as np

from jobs.measure.report import front, write_report


def row(method, psnr, **more):
    zeros = dict.fromkeys(("dense_steps", "seconds", "speedup", "tflops", "flops_ratio", "ssim", "oracle"), 1)
    return {
        "method": method,
        **zeros,
        "psnr_db": psnr,
        "psnr_db_tenth": psnr,
        "psnr_db_min": psnr,
        "recipe": {"name": method},
        **more,
    }


def test_everything_is_written_and_nothing_is_executed(tmp_path):
    rows = [row("full", None), row("resca", 41.5), row("peer", 38.0, dense_steps=None)]
    video = np.full((9, 16, 24, 3), 7, dtype=np.uint8)
    frames = {"<script>alert(1)</script>": {"full": video, "resca": video}}
    write_report(tmp_path / "report", rows, frames, "a title", {"command": "a < b"})
    page = (tmp_path / "report" / "index.html").read_text()
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "a title" in page and "a &lt; b" in page
    assert "41.5" in page and "pareto.svg" in page
    assert imageio.imread(tmp_path / "report" / "frames-0.png").shape == (32, 5 * 24, 3)
    assert imageio.imread(tmp_path / "report" / "pareto.png").shape[1] == 1680
    with (tmp_path / "report" / "rows.csv").open() as file:
        read = list(csv.DictReader(file))
    assert [line["method"] for line in read] == ["full", "resca", "peer"] and "recipe" not in read[0]
    assert "resca" in (tmp_path / "report" / "pareto.svg").read_text()


def test_the_front_holds_what_nothing_beats():
    assert front([(3, 5), (1, 2), (2, 1), (2, 4), (4, 5)]) == [(1, 2), (2, 4), (3, 5)]
