"""The formats of a prompt file: one prompt a line, tables, JSON, the lines of an OpenAI video batch, VBench's lists."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from pydantic import JsonValue

from jobs.errors import BadInput
from jobs.models.family import Json
from jobs.request.prompt_text import BYTE_ORDER_MARK, is_blank

# Where a line stands, and the fields that it gives, which are still to be checked.
Given = tuple[str, Json]
ENVELOPE = ("custom_id", "method", "url", "body")
STANDS_FOR = {"id": "custom_id", "width": "size", "height": "size", "num_frames": "seconds"}
MOST_NAMES = 20
TEXTS = ("prompt", "negative_prompt", "id", "output", "export_as")
FRACTIONS = ("guidance",)
OF_GENEVAL = ("tag", "include", "exclude")
OF_VBENCH = ("prompt_en", "dimension", "auxiliary_info", "video_list")
WHOLE_NUMBER = re.compile(r"(-?[0-9]{1,20})(?:\.0*)?")  # pandas writes 1.0 where other cells of the column are empty
FRACTION = re.compile(r"[0-9]{1,10}(?:\.[0-9]{0,20})?")
# Of a table, in the order in which they are tried.
DELIMITERS = {".csv": ",;\t", ".tsv": "\t;,"}
# As pandas writes its index.
INDEX = re.compile(r"index|column \d+|unnamed:_\d+")
# As other programs have them in their prompt files; what a dash closes (a man --tall and thin-- runs) is prose.
OPTION = re.compile(
    r"-(?<!\S-)(?:-[a-z]\w*(?:-\w+)*(?=[\s=]|$)(?!.*\w--(?!\w))|[a-z] ?[0-9.]+(?!\S))"
    r"|(?<!\S)[–—](?:ar|cfg|chaos|seed|steps|stylize|[a-z])[ =]?[0-9][0-9.:]*(?!\S)",  # as editors write two dashes
    re.IGNORECASE,
)
SETTINGS = re.compile(r"^negative prompt:|^steps: ?[0-9]+,|\bsteps: ?[0-9]+, sampler:|<lora:", re.IGNORECASE)
SIZE = re.compile(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})")


def _lines(text: str, path: Path) -> Iterator[tuple[str, str]]:
    """The lines that are not blank; a line separator of Unicode may stand in a prompt."""
    for number, line in enumerate(text.split("\n"), start=1):
        if not is_blank(line):
            yield f"{path}, line {number}", line.strip()


def field_list(names: Sequence[str]) -> str:
    """`field 'a'`, or `fields 'a', 'b'`; the first ones where there are many."""
    shown, more = ", ".join(map(repr, names[:MOST_NAMES])), len(names) - MOST_NAMES
    return f"field{'s' if len(names) > 1 else ''} {shown}" + (f" and {more} more" if more > 0 else "")


@lru_cache(maxsize=1000)
def field_name(name: str) -> str:
    """A name of a field or column as it is written here: `num_frames` for `Num Frames`."""
    return re.sub(r"[\s-]+", "_", name.strip().lower())


def read_plain(text: str, path: Path, fps: int | None) -> Iterator[Given]:
    """One prompt a line; lines that start with # are comments. Raises BadInput for options of other programs."""
    for where, line in _lines(text, path):
        if not line.startswith("#"):
            _check_plain(line, where)
            yield where, {"prompt": line}


def _check_plain(line: str, where: str) -> None:
    if BYTE_ORDER_MARK in line:
        raise BadInput(f"{where} holds a byte order mark, as of files joined without a line end between; end it there")
    if option := OPTION.search(line) or (":" in line and SETTINGS.search(line)):
        raise BadInput(
            f"{where}: {option[0]!r} would be text of the picture; give settings as columns of a .csv file, or in a "
            '.jsonl file such as {"prompt": "a red ball", "width": 96, "seed": 7}; both take such text as it is'
        )


def read_table(text: str, path: Path, fps: int | None) -> Iterator[Given]:
    """A header row, then a row a video, quoted as in RFC 4180; an empty cell says nothing. Raises BadInput."""
    table = read_columns(text, path, wanted={"prompt"})
    if table.names and "prompt" not in table.names:
        raise BadInput(f"{table.where} must name the columns, one of them prompt, such as: prompt,id,seed")
    return ((where, dict(cells(table.names, row))) for where, row in table.rows)


@dataclass(frozen=True, kw_only=True)
class Table:
    """The names of a table's columns, where they stand, and its rows with where they do."""

    where: str
    names: list[str]
    rows: Iterator[tuple[str, list[str]]]


def read_columns(text: str, path: Path, *, wanted: Set[str]) -> Table:
    """A table, its cells parted by that delimiter by which most `wanted` columns are there.

    Raises BadInput, of a row when it is asked for.
    """
    rows = _rows(text, path, _delimiter(text, path.suffix.lower(), wanted))
    where, header = next(rows, ("", []))
    names = _columns(header)
    if twice := [name for name in names if names.count(name) > 1]:
        raise BadInput(f"{where} names the column {twice[0]!r} twice")
    return Table(where=where, names=names, rows=_of_width(rows, header))


def _of_width(rows: Iterator[tuple[str, list[str]]], header: list[str]) -> Iterator[tuple[str, list[str]]]:
    for where, row in rows:
        if len(row) != len(header):
            raise BadInput(f"{where} has {len(row)} cells where the header has {len(header)}; quote cells with commas")
        if row != header:  # as files that are joined have it again
            yield where, row


def _delimiter(text: str, suffix: str, wanted: Set[str]) -> str:
    """The first of those that find most columns; Python's Sniffer would guess from the letters of prose."""
    header = text.lstrip("\n ").partition("\n")[0]
    found: dict[str, int] = {}
    for delimiter in DELIMITERS[suffix]:
        with suppress(csv.Error):
            found[delimiter] = len(wanted & set(_columns(next(csv.reader([header], delimiter=delimiter), []))))
    return max(found, key=lambda delimiter: found[delimiter], default=DELIMITERS[suffix][0])


def _columns(header: list[str]) -> list[str]:
    return [field_name(name) or f"column {number}" for number, name in enumerate(header, start=1)]


def _rows(text: str, path: Path, delimiter: str) -> Iterator[tuple[str, list[str]]]:
    """The rows with anything in them; a row is named by its first line, as quoted cells may have several."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    number = 1
    try:
        for row in rows:
            if not all(map(is_blank, row)):
                yield f"{path}, line {number}", row
            number = rows.line_num + 1
    except csv.Error as error:
        raise BadInput(f"{path}, line {number} is not valid CSV: {error}") from None


def cells(names: list[str], row: list[str]) -> Iterator[tuple[str, str | float]]:
    """What a row says: a number where one belongs; anything else there is refused as the text that it is."""
    for name, cell in zip(names, map(str.strip, row), strict=True):
        if cell and not (INDEX.fullmatch(name) and WHOLE_NUMBER.fullmatch(cell)):
            yield name, cell_value(name, cell)


def cell_value(name: str, cell: str) -> str | float:
    """What a cell, or a field of a form, means."""
    if name in FRACTIONS and FRACTION.fullmatch(cell):
        return float(cell)
    number = None if name in TEXTS else WHOLE_NUMBER.fullmatch(cell)
    return int(number[1]) if number else cell


def read_json(text: str, path: Path, fps: int | None) -> Iterator[Given]:
    """An array of videos, or a video a line: its fields, a request of an OpenAI batch, or VBench's. Raises BadInput."""
    values = _elements(text, path) if text.lstrip().startswith("[") else _values(text, path)
    return ((where, _fields(value, where, fps)) for where, value in values)


def _values(text: str, path: Path) -> Iterator[tuple[str, JsonValue]]:
    return ((where, parsed(line, where)) for where, line in _lines(text, path))


def _elements(text: str, path: Path) -> Iterator[tuple[str, JsonValue]]:
    array = parsed(text, str(path))
    assert isinstance(array, list)
    return ((f"{path}, entry {number}", value) for number, value in enumerate(array, start=1))


def parsed(text: str, where: str) -> JsonValue:
    """A JSON value in which each name stands once. Raises BadInput."""
    try:
        return json.loads(text, object_pairs_hook=_once)
    except json.JSONDecodeError as error:
        line = f"line {error.lineno}, " if "\n" in text else ""
        raise BadInput(f"{where} is not valid JSON: {error.msg} at {line}column {error.colno}") from None
    except RecursionError:
        raise BadInput(f"{where} is nested too deeply") from None
    except ValueError as error:
        raise BadInput(f"{where} is not valid JSON: {error}") from None


def _once(pairs: list[tuple[str, JsonValue]]) -> Json:
    """An object; JSON's own reader would take the last of two values without a word."""
    given = dict(pairs)
    if len(given) < len(pairs):
        raise ValueError(f"a name stands twice among {', '.join(name for name, _ in pairs)}")
    return given


def _fields(value: JsonValue, where: str, fps: int | None) -> Json:
    """What a value says, with the names of fields as they are written here. Raises BadInput.

    What GenEval looks for in its images is no business of theirs.
    """
    if isinstance(value, str):
        return {"prompt": value}
    if not isinstance(value, dict):
        raise BadInput(f'{where} must be a JSON object such as {{"prompt": "..."}}, not {json.dumps(value)[:40]}')
    given = {field_name(name): each for name, each in value.items()}
    if len(given) < len(value):
        raise BadInput(f"{where} has two fields that differ in their letters' case alone: {', '.join(value)}")
    if "body" in given or "custom_id" in given:
        return _request(given, where, fps)
    if "prompt" in given and {"tag", "include"} <= given.keys():
        return {name: each for name, each in given.items() if name not in OF_GENEVAL}
    return _of_vbench(given) if "prompt_en" in given and "prompt" not in given else given


def _of_vbench(given: Json) -> Json:
    """An entry of VBench_full_info.json: the prompt; what VBench measures on its videos is no business of theirs."""
    return {"prompt": given["prompt_en"]} | {name: each for name, each in given.items() if name not in OF_VBENCH}


def _request(given: Json, where: str, fps: int | None) -> Json:
    """The fields of a batch request for /v1/videos, see https://developers.openai.com/api/docs/guides/batch.

    `size` is WIDTHxHEIGHT; `seconds` asks for fps frames each, and the one that a video starts with; `model` is
    ignored. The body may hold this package's own fields, too.
    """
    if unknown := [name for name in given if name not in ENVELOPE]:
        raise BadInput(f"{where}: unknown {field_list(unknown)} beside body; known: {', '.join(ENVELOPE)}")
    body = given.get("body")
    if not isinstance(body, dict):
        raise BadInput(f'{where}: body must be an object such as {{"prompt": "..."}}')
    body = {field_name(name): value for name, value in body.items()}
    fields = {name: value for name, value in body.items() if name not in ("model", "size", "seconds")}
    derived = {"id": given.get("custom_id"), **_size(body, where), **_num_frames(body, where, fps)}
    if twice := [name for name in derived if name in fields]:
        raise BadInput(f"{where}: {twice[0]} cannot stand in body beside {STANDS_FOR[twice[0]]}")
    return fields | derived


def read_request(body: Json, item_id: str, where: str, fps: int | None) -> Json:
    """The fields of a single request of that kind. Raises BadInput."""
    return _request({"custom_id": item_id, "body": body}, where, fps)


def _size(body: Json, where: str) -> dict[str, int]:
    if (size := body.get("size")) is None:
        return {}
    if not (isinstance(size, str) and (sides := SIZE.fullmatch(size))):
        raise BadInput(f"{where}: size {size!r} must be WIDTHxHEIGHT, such as 1280x720")
    return {"width": int(sides[1]), "height": int(sides[2])}


def _num_frames(body: Json, where: str, fps: int | None) -> dict[str, int]:
    if (seconds := body.get("seconds")) is None:
        return {}
    if isinstance(seconds, bool) or not re.fullmatch(r"[1-9][0-9]{0,5}", str(seconds)):
        raise BadInput(f"{where}: seconds {seconds!r} must be a whole number of at least 1")
    if fps is None:
        raise BadInput(f"{where}: the model makes images, which take no seconds; leave them out")
    if type(own := body.get("fps")) is int:
        fps = own
    return {"num_frames": int(str(seconds)) * fps + 1}


READERS: dict[str, Callable[[str, Path, int | None], Iterator[Given]]] = {
    ".txt": read_plain,
    ".csv": read_table,
    ".tsv": read_table,
    ".json": read_json,
    ".jsonl": read_json,
}
