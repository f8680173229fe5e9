"""Prompts that a template makes of the rows of a table: "a {animal} in {place}"."""

import string
from collections.abc import Iterator
from pathlib import Path

from jobs.errors import BadInput
from jobs.models.family import Json
from jobs.request.prompt_lines import DELIMITERS, Given, cells, field_name, read_columns
from jobs.request.prompt_text import is_blank, read_text

HINT = 'write columns in braces, as in "a {animal} in {place}", and braces that are text twice, {{ and }}'

# What stands before a column, and the column; none at the end.
Part = tuple[str, str | None]


def read_template(template: str, table: Path, known: frozenset[str]) -> Iterator[Given]:
    """A line a row. Other columns that are `known` fields of a line are its settings; further ones count for nothing.

    Raises BadInput for a template that names no column or one that the table lacks, and for a row without its text.
    """
    if table.suffix.lower() not in DELIMITERS:
        raise BadInput(f"--table {table} must end in {' or '.join(DELIMITERS)}")
    parts = _parts(template)
    wanted = dict.fromkeys(column for _, column in parts if column)
    if not wanted:
        raise BadInput(f"--template {template!r} names no column of the table; {HINT}")
    columns = read_columns(read_text(table), table, wanted=set(wanted))
    if missing := [column for column in wanted if column not in columns.names]:
        there = f"it has {', '.join(columns.names)}" if columns.names else "it is empty"
        raise BadInput(f"--template names the column {missing[0]!r}, which {table} does not have; {there}")
    for where, row in columns.rows:
        texts = dict(zip(columns.names, map(str.strip, row), strict=True))
        if empty := [column for column in wanted if is_blank(texts[column])]:
            raise BadInput(f"{where} has nothing in the column {empty[0]!r}, which --template names")
        yield where, _settings(columns.names, row, known - wanted.keys()) | {"prompt": _filled(parts, texts)}


def _parts(template: str) -> list[Part]:
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError as error:
        raise BadInput(f"--template {template!r}: {error}; {HINT}") from None
    for _, name, form, conversion in parts:
        if name is not None and (form or conversion or is_blank(name) or set(name) & set("{}[].!:")):
            raise BadInput(f"--template {template!r} has {{{name}}} with more or less than a column's name; {HINT}")
    return [(text, None if name is None else field_name(name)) for text, name, _, _ in parts]


def _filled(parts: list[Part], texts: dict[str, str]) -> str:
    return "".join(text + (texts[column] if column else "") for text, column in parts)


def _settings(names: list[str], row: list[str], known: frozenset[str]) -> Json:
    return {name: value for name, value in cells(names, row) if name in known}
