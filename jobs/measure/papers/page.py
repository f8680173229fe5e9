"""The tables of the papers as a directory to look at: a page, rows as CSV and JSON, about.json."""

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from caching.recipe.recipe import RECIPES, Recipe
from caching.recipe.schedule import Broadcast, Interval, Places
from caching.recipe.tokens import SelectedTokens, TrajectoryMedoids
from jobs.console import write_rows
from jobs.measure.papers.count import NEAR, Counted
from jobs.measure.papers.tables import Table, Unit
from jobs.measure.report import framed, write_csv
from jobs.store.files import write_text

INTRODUCTION = (
    "What ResCa and DuCa say that methods cost, and what is counted here, without weights, by running every step of "
    "each recipe on PyTorch's meta device. <i>As stated</i> is the setting that the paper names; where it names none, "
    "or another one gives its figure, that stands under <i>as found</i>. Deviations are those of the last column that "
    "has a count. Tables of scores alone (DuCa I), of complexity (ResCa S2) and of quality have no place here."
)
STYLE = """
body { max-width: 92rem } td:first-child { white-space: nowrap }
.near { background: #d9f0d9 } .far { background: #f7d8d0 } .other { background: #eee }
td.text, th.text { text-align: left } td.reason { text-align: left; max-width: 34rem; font-size: 13px }
h2 { margin-top: 2.5rem }
"""
UNITS: dict[Unit, str] = {
    "TFLOPs": "TFLOPs",
    "ratio": "FLOPs of full sampling over the method's",
    "latency": "published: seconds of full sampling over the method's; counted: FLOPs likewise",
}
HEADING = ("", "published", "as stated", "", "as found", "", "deviation", "")
Tables = Sequence[tuple[Table, Sequence[Counted]]]


def write_tables(directory: Path, tables: Tables, about: Mapping[str, str]) -> None:
    """Write everything, each file whole or not at all."""
    directory.mkdir(parents=True, exist_ok=True)
    rows = [row(table, counted) for table, counts in tables for counted in counts]
    write_rows(directory / "rows.json", rows)
    write_csv(directory / "rows.csv", rows)
    write_text(directory / "about.json", json.dumps(about, indent=2) + "\n")
    body = "".join(_section(table, counts) for table, counts in tables)
    page = framed("Published figures, counted", about, f"<p>{INTRODUCTION}</p>{body}", style=STYLE)
    write_text(directory / "index.html", page)


def row(table: Table, counted: Counted) -> dict[str, object]:
    """One figure as plain data."""
    figure, deviation = counted.figure, counted.deviation(counted.best)
    return {
        "paper": table.paper,
        "table": table.number,
        "model": table.model,
        "unit": table.unit,
        "label": figure.label,
        "published": figure.value,
        "stated": None if counted.stated is None else round(counted.stated, 4),
        "stated_setting": described(figure.stated, figure.steps),
        "found": None if counted.found is None else round(counted.found, 4),
        "found_setting": described(figure.found, figure.steps),
        "deviation": None if deviation is None else round(deviation, 5),
        "reason": figure.reason,
    }


def described(method: Recipe | None, steps: int | None = None) -> str:
    """A setting in a few words: `toca, N = 5, first 3 dense, R = 90%`."""
    if method is None:
        return ""
    known = RECIPES.get(method.name)
    feature = [method.feature] if known and method.feature != known.feature else []
    own = [*([f"{steps} steps"] if steps else []), *_schedule(method), *_tokens(method), *feature]
    return ", ".join([method.name, *own])


def _schedule(method: Recipe) -> list[str]:
    match method.schedule:
        case Interval() as schedule if schedule.has_sparse_steps:
            return [f"N = {schedule.every}", *_first(schedule)]
        case Broadcast() as schedule:
            return [f"N = {schedule.every}/{schedule.time}/{schedule.text}", *_first(schedule)]
        case Places() as schedule:
            dense = len({0, *schedule.dense})
            return [f"{dense} dense steps"] if dense > 1 else []
    return []


def _first(schedule: Interval | Broadcast) -> list[str]:
    return [f"first {schedule.first} dense"] if schedule.first > 1 else []


def _tokens(method: Recipe) -> list[str]:
    match method.tokens:
        case TrajectoryMedoids() as tokens:
            history = ["clusters of one step"] if tokens.history == 1 else []
            return [f"O = {method.predictor.order}", f"K = {tokens.clusters}", *history]
        case SelectedTokens() as tokens:
            return [f"R = {tokens.ratio:.0%}", *([f"tokens in {tokens.turns} steps"] if tokens.turns != "all" else [])]
    return []


def _section(table: Table, counts: Sequence[Counted]) -> str:
    title = f"{table.paper}, {table.number}: {table.model}, {table.num_steps} steps"
    heading = "".join(f"<th{' class=text' if not name else ''}>{name}</th>" for name in HEADING)
    remark = f" {html.escape(table.remark)}" if table.remark else ""
    rows = "".join(_line(table, counted) for counted in counts)
    caption = f"<p>In {html.escape(UNITS[table.unit])}.{remark}</p>"
    return f"<h2>{html.escape(title)}</h2>{caption}<table><tr>{heading}</tr>{rows}</table>"


def _line(table: Table, counted: Counted) -> str:
    figure, deviation = counted.figure, counted.deviation(counted.best)
    judged = "other" if table.unit == "latency" or counted.meets is None else "near" if counted.meets else "far"
    cells = [
        f"<td class=text>{html.escape(figure.label)}</td>",
        f"<td>{_number(figure.value, table.unit)}</td>",
        f"<td>{_number(counted.stated, table.unit)}</td>",
        f"<td class=text>{html.escape(described(figure.stated, figure.steps))}</td>",
        f"<td>{_number(counted.found, table.unit)}</td>",
        f"<td class=text>{html.escape(described(figure.found, figure.steps))}</td>",
        f"<td class={judged}>{'' if deviation is None else f'{deviation:+.2%}'}</td>",
        f"<td class=reason>{html.escape(figure.reason)}</td>",
    ]
    return f"<tr>{''.join(cells)}</tr>"


def _number(value: float | None, unit: Unit) -> str:
    if value is None:
        return ""
    return f"{value:,.2f}" if unit == "TFLOPs" else f"{value:.2f}x"


def summary(tables: Tables) -> str:
    """How many figures are met, in a sentence."""
    judged = [counted for table, counts in tables if table.unit != "latency" for counted in counts]
    judged = [counted for counted in judged if counted.meets is not None]
    far = [counted for counted in judged if not counted.meets]
    silent = sum(not counted.figure.reason for counted in far)
    return (
        f"{len(judged) - len(far)} of {len(judged)} published figures are met within {NEAR:.0%}; "
        f"{len(far)} are not, {silent} of them without a reason"
    )
