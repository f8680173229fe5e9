"""A benchmark as a directory to look at: a page with frames, a Pareto plot (PNG, SVG), rows (JSON, CSV), about.json."""

import csv
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import imageio.v3 as imageio
import numpy as np

from jobs.demo.strip import film_strip
from jobs.measure.rows import BenchmarkRow
from jobs.store.files import write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Point = tuple[float, float]
NUM_FRAMES = 5
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem }}
table {{ border-collapse: collapse }} td, th {{ padding: .2rem .7rem; text-align: right }}
th:first-child, td:first-child {{ text-align: left }} tr:nth-child(even) {{ background: #f3f3f3 }}
dt {{ float: left; width: 6rem; color: #666 }} dd {{ margin-left: 6rem }}
img {{ max-width: 100% }} figure {{ margin: 2rem 0 }} figcaption {{ font-weight: bold; margin-bottom: .5rem }}
.rows {{ display: grid; grid-template-columns: 14rem 1fr; align-items: center }} .rows div {{ width: 100% }}
{style}</style>
<h1>{title}</h1>
<dl>{about}</dl>
{body}
</html>
"""
BODY = """<table><tr>{heading}</tr>{rows}</table>
<p><img src="pareto.svg" alt="fidelity against FLOPs and against seconds"></p>
{frames}"""
COLUMNS = {
    "method": "{}",
    "dense_steps": "{:.4g}",
    "seconds": "{:.2f}",
    "speedup": "{:.2f}x",
    "flops_ratio": "{:.2f}x",
    "psnr_db": "{:.1f}",
    "psnr_db_min": "{:.1f}",
    "ssim": "{:.4f}",
    "oracle": "{:.2f}",
}


def write_report(
    directory: Path,
    rows: Sequence[BenchmarkRow],
    frames: dict[str, dict[str, np.ndarray]],
    title: str,
    about: dict[str, str],
) -> None:
    """Write everything.

    Args:
        rows: one a method, as in the table.
        frames: for each prompt, each method's video `[F, H, W, 3]` of bytes.
        about: how it was measured, for the head of the page.
    """
    directory.mkdir(parents=True, exist_ok=True)
    write_text(directory / "rows.json", json.dumps(rows, indent=2) + "\n")
    write_text(directory / "about.json", json.dumps(about, indent=2) + "\n")
    write_csv(directory / "rows.csv", rows)
    plot_pareto(directory, rows)
    figures = [_figure(directory, number, *entry) for number, entry in enumerate(frames.items())]
    write_text(directory / "index.html", _page(title, about, rows, figures))


def plot_pareto(directory: Path, rows: Sequence[BenchmarkRow]) -> None:
    """Fidelity against FLOPs and against seconds, with the front that nothing beats; up and to the left is better."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    compared = [(row, quality) for row in rows if (quality := row["psnr_db"]) is not None]
    figure, axes = pyplot.subplots(1, 2, figsize=(14, 7), sharey=True, layout="constrained")
    costs = ("tflops", "TFLOPs of denoising"), ("seconds", "seconds of denoising")
    for axis, (key, label) in zip(axes, costs, strict=True):
        best = front([(row[key], quality) for row, quality in compared])
        axis.plot(*zip(*best, strict=True), color="0.7", zorder=1)
        for ours, colour in ((True, "C3"), (False, "C0")):
            of_kind = [(row[key], quality) for row, quality in compared if (row["dense_steps"] is not None) is ours]
            points = [cost for cost, _ in of_kind], [quality for _, quality in of_kind]
            axis.plot(*points, "o", color=colour, label="recipes" if ours else "peers")
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
        axis.margins(x=0.3)
    axes[0].set_ylabel("PSNR against full sampling, dB")
    figure.legend(*axes[1].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    figure.canvas.draw()
    for axis, key in zip(axes, ("tflops", "seconds"), strict=True):
        _label(axis, [(row["method"], (row[key], quality)) for row, quality in compared])
    for kind in ("png", "svg"):
        figure.savefig(directory / f"pareto.{kind}", dpi=120)
    pyplot.close(figure)


def front(points: Sequence[Point]) -> list[Point]:
    """The points of (cost, quality) that no other beats in both, by cost."""
    best: list[Point] = []
    for cost, quality in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or quality > best[-1][1]:
            best.append((cost, quality))
    return best


def _label(axis: "Axes", names: list[tuple[str, Point]]) -> None:
    """Write each name to the right of its point, or as near below as it does not cover another."""
    taken: list[tuple[float, float, float]] = []  # left end, right end and height of each label, in points
    for name, point in sorted(names, key=lambda entry: -entry[1][1]):
        x, y = axis.transData.transform(point) * 72 / axis.figure.dpi
        left, right, height = x + 6, x + 6 + 4.6 * len(name), y
        while clash := [at for begin, end, at in taken if begin < right and left < end and abs(at - height) < 9]:
            height = min(clash) - 9
        taken.append((left, right, height))
        line = {"arrowstyle": "-", "color": "0.6", "lw": 0.5} if y - height > 6 else None
        place = (6, height - y - 3)
        axis.annotate(name, point, xytext=place, textcoords="offset points", size=8, arrowprops=line, in_layout=False)


def write_csv(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows of equal keys as a table; recipes are left out."""
    keys = [key for key in rows[0] if key != "recipe"]
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, keys, extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


def _figure(directory: Path, number: int, prompt: str, videos: dict[str, np.ndarray]) -> str:
    """One prompt: a picture with a row of frames a method, shown row by row, each beside its method's name."""
    strips = [film_strip(video, NUM_FRAMES) for video in videos.values()]
    name = f"frames-{number}.png"
    imageio.imwrite(directory / name, np.concatenate(strips, axis=0))
    height, width = strips[0].shape[:2]
    rows = []
    for row, method in enumerate(map(html.escape, videos)):
        place = 100 * row / max(1, len(videos) - 1)
        style = f"aspect-ratio: {width} / {height}; background: url({name}) 0 {place:.4f}% / 100%"
        rows.append(f'<span>{method}</span><div role="img" aria-label="frames of {method}" style="{style}"></div>')
    limit = f"max-width: calc(14rem + {width}px)"
    grid = f'<div class="rows" style="{limit}">{"".join(rows)}</div>'
    return f"<figure><figcaption>{html.escape(prompt)}</figcaption>{grid}</figure>"


def framed(title: str, about: Mapping[str, str], body: str, style: str = "") -> str:
    """A page with a title and how it was made at its head; the body is HTML, and more rules of style may be given."""
    facts = "".join(f"<dt>{html.escape(name)}</dt><dd>{html.escape(text)}</dd>" for name, text in about.items())
    return PAGE.format(title=html.escape(title), about=facts, body=body, style=style)


def _page(title: str, about: dict[str, str], rows: Sequence[BenchmarkRow], figures: list[str]) -> str:
    heading = "".join(f"<th>{column}</th>" for column in COLUMNS)
    cells = "".join(f"<tr>{''.join(_cell(row[key], form) for key, form in COLUMNS.items())}</tr>" for row in rows)
    return framed(title, about, BODY.format(heading=heading, rows=cells, frames="\n".join(figures)))


def _cell(value: object, form: str) -> str:
    return f"<td>{'' if value is None else html.escape(form.format(value))}</td>"
