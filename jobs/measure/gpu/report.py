"""The rows as a directory: report.md to read, rows.json, and about.json with the command, the machine and versions."""

import json
from collections.abc import Sequence
from pathlib import Path

from jobs.console import write_rows
from jobs.measure.gpu.rows import CaseRow
from jobs.store.files import write_text

GIB = 2**30
Cells = dict[str, str]
About = dict[str, str | float | None]  # how it was measured, for the head of the page

NOTES = """\
- Weights, prompt and noise are random: the times are those of the model, its videos are not. No text encoder, no VAE.
- *timed*: so many dense + sparse steps, one by one, the device being waited for after each. *dense s* and *sparse s*
  are seconds of a step: medians, for sparse steps the mean of the medians of the first, second ... after a dense one.
  The steps before that are a warm-up. *clustering s*, of ResCa, is a part of *dense s*.
- *loop s* is *derived* where only the first steps were run: the *dense/sparse* steps of the whole loop, times the
  seconds of one. It is *measured*, from the first step to the last, where all were run, as those of peers are.
- Methods that look at the input (`teacache`) pay for it, but their dense steps are those of a typical
  video, every third or fourth: random weights would mislead them. Peers that look at it are misled, so their number of
  dense steps says nothing about real videos; the times of their steps do.
- *speed-up*: *loop s* of `full` at that size, compiled if the row is, over the row's own. *FLOPs ratio*: FLOPs of
  `full` over the row's, counted on the meta device after all timing. *realised*: speed-up over FLOPs ratio.
- *MFU*: FLOPs of a step of `full`, over *dense s*, over what the matrix product above reaches.
- *peak GiB*: what PyTorch had allocated at most, weights included.
"""


def write_report(directory: Path, rows: Sequence[CaseRow], about: About) -> None:
    """Write everything, each file whole or not at all."""
    directory.mkdir(parents=True, exist_ok=True)
    write_rows(directory / "rows.json", rows)
    write_text(directory / "about.json", json.dumps(about, indent=2) + "\n")
    write_text(directory / "report.md", _page(rows, about))


def readable(row: CaseRow) -> Cells:
    """A row in few columns, for people."""

    def show(value: float | None, form: str, scale: float = 1) -> str:
        return "" if value is None else form.format(value * scale)

    kernel = f", {row['attention']} attention" if row["attention"] != "default" else ""
    return {
        "size": row["size"],
        "method": f"{row['method']}{', compiled' if row['compiled'] else ''}{kernel}",
        "dense/sparse": f"{row.get('dense_steps')}/{row.get('sparse_steps')}" if row.get("dense_steps") else "",
        "timed": f"{row.get('timed_dense')}+{row.get('timed_sparse')}" if "timed_dense" in row else "",
        "dense s": show(row.get("dense_s"), "{:.4g}"),
        "sparse s": show(row.get("sparse_s"), "{:.3g}"),
        "clustering s": show(row.get("clustering_s"), "{:.2g}"),
        "loop s": show(row.get("loop_s"), "{:.4g}"),
        "loop is": row.get("loop_is") or "",
        "speed-up": show(row.get("speedup"), "{:.2f}x"),
        "FLOPs ratio": show(row.get("flops_ratio"), "{:.2f}x"),
        "realised": show(row.get("realised"), "{:.1%}"),
        "MFU": show(row.get("mfu"), "{:.1%}"),
        "peak GiB": show(row.get("peak_bytes"), "{:.1f}", 1 / GIB),
        "status": row["status"],
    }


def _page(rows: Sequence[CaseRow], about: About) -> str:
    facts = "\n".join(f"- {name}: {value}" for name, value in about.items())
    columns = list(readable(rows[0])) if rows else []
    cells = [columns, ["---"] * len(columns), *(list(readable(row).values()) for row in rows)]
    table = "\n".join(f"| {' | '.join(line)} |" for line in cells)
    return f"# Steps at full size\n\n{facts}\n\n{table}\n\n{NOTES}"
