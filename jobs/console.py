"""What commands print: text as it is, tables, and amounts as people read them."""

import io
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from select import select
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.table import Table

from jobs.errors import InfrastructureError
from jobs.store.files import write_text

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

PLAIN_WIDTH = 200


class LastingStream(io.FileIO):
    """A standard stream that drops what nobody takes: the disk behind it is full, or its reader or terminal is gone."""

    def write(self, data: "ReadableBuffer", /) -> int:
        try:
            while (taken := super().write(data)) is None:  # Full, and somebody has set it not to wait.
                select((), (self,), ())
            return taken
        except OSError:
            return memoryview(data).nbytes


def use_lasting_streams() -> None:
    """From now on, nothing that standard output and error cannot take ends what the process does.

    Letters outside the locale are replaced. What stands in their place already, of a test or a notebook, stays.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # Closed: the next file that is opened would get its number, and all that is printed.
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is sys.__stdout__:
        sys.stdout = _lasting(1, sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = _lasting(2, sys.stderr)


def _lasting(number: int, stream: TextIO | None) -> TextIO:
    """`stream` is None where it was closed."""
    return io.TextIOWrapper(
        io.BufferedWriter(LastingStream(number, "w", closefd=False)),
        encoding=stream.encoding if stream else "utf-8",
        errors="replace",
        # As Python itself does it; where it would not buffer at all (PYTHONUNBUFFERED), whole lines do as well.
        line_buffering=isinstance(stream, io.TextIOWrapper) and (stream.line_buffering or stream.write_through),
    )


class PlainConsole(Console):
    """Prints text as it is, and nothing that would steer a terminal: prompts and errors may hold anything."""

    def __init__(self, **options: Any):
        super().__init__(highlight=False, markup=False, emoji=False, **options)

    def print(self, *objects: object, **options: Any) -> None:
        super().print(*(visible(each) if isinstance(each, str) else each for each in objects), **options)


def make_console(*, stderr: bool = False) -> Console:
    """Standard output or error; wide lines, and nothing that moves, where it is a file or a pipe.

    FORCE_COLOR and its like make no terminal of a file.
    """
    is_terminal = None if (sys.stderr if stderr else sys.stdout).isatty() else False
    console = PlainConsole(stderr=stderr, force_terminal=is_terminal, force_interactive=is_terminal)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    return console


@contextmanager
def under_way(console: Console, what: str) -> Iterator[None]:
    """Says what takes its time in the block: beside something that moves on a terminal, elsewhere as a line."""
    if not console.is_terminal:
        console.print(what, soft_wrap=True)
        yield
        return
    with console.status(what):
        yield


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
    """Write the rows of a table as JSON, whole or not at all. Raises InfrastructureError if that cannot be done."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(rows, indent=2) + "\n")
    except OSError as error:
        raise InfrastructureError(f"{path} cannot be written: {error.strerror or error}") from error


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `5.5 hours`, `3.2 days`."""
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("min", 60.0)):
        if seconds >= 2 * length:
            amount = seconds / length
            return f"{amount:.0f} {unit}" if unit == "min" or amount >= 10 else f"{amount:.1f} {unit}"
    return f"{seconds:.0f} s"


def figure(number: float) -> str:
    """`12,345`, `340`, `12.3`, `0.0123`."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def count(number: int, noun: str) -> str:
    """`1 video`, `2 videos`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
