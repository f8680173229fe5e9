"""A prediction as a directory to look at: a page with curves (PNG, SVG), rows.json, and what the figures rest on."""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.predict.plan import UNMEASURED, Question, Row
from jobs.predict.profile import Quantity
from jobs.store.files import write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem }}
table {{ border-collapse: collapse; margin: 1rem 0 }} td, th {{ padding: .2rem .7rem; text-align: right }}
th:first-child, td:first-child, td:last-child {{ text-align: left }} tr:nth-child(even) {{ background: #f3f3f3 }}
img {{ max-width: 100% }}
</style>
<h1>{title}</h1>
<p>{words}.</p>
<p><img src="curves.svg" alt="seconds, videos an hour and efficiency by the number of GPUs"></p>
{rows}
<h2>What it rests on</h2>
{quantities}
</html>
"""
CURVES = {
    "seconds of one video": ("latency", "seconds", "from", "to"),
    "videos an hour": ("throughput", "videos/h", None, None),
    "efficiency of one video": ("latency", "efficiency", None, None),
}


def write_report(directory: Path, question: Question, rows: Sequence[Row]) -> None:
    """Write everything; `rows` are those of the table."""
    directory.mkdir(parents=True, exist_ok=True)
    write_text(directory / "rows.json", json.dumps(rows, indent=2) + "\n")
    quantities = [_row_of(name, each) for name, each in question.profile.quantities.items()]
    write_text(directory / "rests-on.json", json.dumps(quantities, indent=2) + "\n")
    plot_curves(directory, rows)
    title = f"{question.shape.name} on {', '.join(map(str, question.num_gpus))} GPUs, predicted"
    page = PAGE.format(
        title=html.escape(title),
        words=html.escape(question.words),
        rows=_table(rows),
        quantities=_table(quantities),
    )
    write_text(directory / "index.html", page)


def plot_curves(directory: Path, rows: Sequence[Row]) -> None:
    """By the number of GPUs, a line a method; bands are as far as the rates may be wrong."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(CURVES), figsize=(16, 5.5), layout="constrained")
    for axis, (title, (aim, key, low, high)) in zip(axes, CURVES.items(), strict=True):
        _draw(axis, [row for row in rows if row.get("for") == aim], key, low, high)
        axis.set_title(title)
        axis.set_xlabel("GPUs")
        axis.set_xscale("log", base=2)
        axis.xaxis.set_major_formatter("{x:g}")
        axis.set_yscale("linear" if key == "efficiency" else "log")
        axis.grid(alpha=0.3)
    axes[-1].set_ylim(0, 1.05)
    axes[0].legend()
    figure.suptitle(f"predicted; {UNMEASURED}", fontsize=10, color="0.4")
    for kind in ("png", "svg"):
        figure.savefig(directory / f"curves.{kind}", dpi=110)
    pyplot.close(figure)


def _draw(axis: "Axes", rows: Sequence[Row], key: str, low: str | None, high: str | None) -> None:
    for number, method in enumerate(dict.fromkeys(row["method"] for row in rows)):
        of_method = [row for row in rows if row["method"] == method]
        gpus, values = _column(of_method, "gpus"), _column(of_method, key)
        axis.plot(gpus, values, "o-", color=f"C{number}", label=str(method), ms=4)
        if low and high:
            band = _column(of_method, low), _column(of_method, high)
            axis.fill_between(gpus, *band, color=f"C{number}", alpha=0.15, lw=0)


def _column(rows: Sequence[Row], key: str) -> list[float]:
    return [value for row in rows if isinstance(value := row[key], int | float)]


def _row_of(name: str, quantity: Quantity) -> Row:
    numbers = {key: f"{getattr(quantity, key):.3g}" for key in ("value", "low", "high")}
    return {"quantity": name, **numbers, "source": quantity.source}


def _table(rows: Sequence[Mapping[str, object]]) -> str:
    keys = [key for key in dict.fromkeys(key for row in rows for key in row) if key != "parts"]
    heading = "".join(f"<th>{html.escape(key)}</th>" for key in keys)
    lines = ["".join(f"<td>{_cell(row.get(key))}</td>" for key in keys) for row in rows]
    return f"<table><tr>{heading}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _cell(value: object) -> str:
    return "" if value is None else html.escape(f"{value:g}" if isinstance(value, float) else str(value))
