"""What commands print: text as it is, tables, and amounts as people read them."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from jobs.store.files import write_text

PLAIN_WIDTH = 200


Row = dict[str, Any]


class PlainConsole(Console):
    """Prints text as it is, and nothing that would steer a terminal: prompts and errors may hold anything."""

    def __init__(self, **options: Any):
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(visible(each) if isinstance(each, str) else each for each in objects), **options)


def make_console() -> Console:
    """Standard output; wide lines where it is a file or a pipe."""
    console = PlainConsole()
    return console if console.is_terminal else PlainConsole(width=PLAIN_WIDTH)


def visible(text: str) -> str:
    """The text with what has no shape of its own (escape sequences, say) shown as a replacement character."""
    return "".join(
        letter if letter.isprintable() or letter in "\n\t" else "\N{REPLACEMENT CHARACTER}" for letter in text
    )


def print_rows(console: Console, rows: Sequence[Mapping[str, object]]) -> None:
    """Any rows as a table: one column a key, without what is nested and what no row knows."""
    known = {key for row in rows for key, value in row.items() if value is not None and not isinstance(value, dict)}
    keys = [key for key in dict.fromkeys(key for row in rows for key in row) if key in known]
    table = Table(*keys)
    for row in rows:
        table.add_row(*(_cell(row.get(key)) for key in keys))
    console.print(table)


def write_rows(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write the rows of a table as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(rows, indent=2) + "\n")


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `5.5 hours`, `3.2 days`."""
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            amount = seconds / length
            return f"{amount:.0f} {unit}" if unit == "min" or amount >= 10 else f"{amount:.1f} {unit}"
    return f"{seconds:.0f} s"


def count(number: int, noun: str) -> str:
    """`1 video`, `2 videos`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
