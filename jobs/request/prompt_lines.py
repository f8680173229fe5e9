"""The formats of a prompt file: one prompt a line, CSV, JSON lines, and the lines of an OpenAI video batch."""

import csv
import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from jobs.errors import BadInput
from jobs.models.family import Json

# Where a line stands, and the fields that it gives, which are still to be checked.
Given = tuple[str, Json]
ENVELOPE = ("custom_id", "method", "url", "body")
STANDS_FOR = {"id": "custom_id", "width": "size", "height": "size", "num_frames": "seconds"}
WHOLE_NUMBER = re.compile(r"-?[0-9]{1,20}")
SIZE = re.compile(r"([1-9][0-9]{0,5})x([1-9][0-9]{0,5})")


def _lines(text: str, path: Path) -> Iterator[tuple[str, str]]:
    """The lines that are not blank; a line separator of Unicode may stand in a prompt."""
    for number, line in enumerate(text.split("\n"), start=1):
        if line := line.strip():
            yield f"{path}, line {number}", line


def read_plain(text: str, path: Path, fps: int) -> Iterator[Given]:
    """One prompt a line; lines that start with # are comments."""
    return ((where, {"prompt": line}) for where, line in _lines(text, path) if not line.startswith("#"))


def read_csv(text: str, path: Path, fps: int) -> Iterator[Given]:
    """A header row, then a row a video, quoted as in RFC 4180; an empty cell says nothing. Raises BadInput."""
    rows = _rows(text, path)
    where, header = next(rows, ("", []))
    names = [name.strip() for name in header]
    if header and "prompt" not in names:
        raise BadInput(f"{where} must name the columns, one of them prompt, such as: prompt,id,seed")
    if twice := [name for name in names if names.count(name) > 1]:
        raise BadInput(f"{where} names the column {twice[0]!r} twice")
    for where, row in rows:
        if len(row) != len(names):
            raise BadInput(f"{where} has {len(row)} cells where the header has {len(names)}; quote cells with commas")
        yield where, {name: _cell(name, cell.strip()) for name, cell in zip(names, row, strict=True) if cell.strip()}


def _rows(text: str, path: Path) -> Iterator[tuple[str, list[str]]]:
    """The rows with anything in them; a row is named by its first line, as quoted cells may have several."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    number = 1
    try:
        for row in rows:
            if any(cell.strip() for cell in row):
                yield f"{path}, line {number}", row
            number = rows.line_num + 1
    except csv.Error as error:
        raise BadInput(f"{path}, line {number} is not valid CSV: {error}") from None


def _cell(name: str, cell: str) -> str | int:
    """A number where one belongs; anything else there is refused as the text that it is."""
    return int(cell) if name not in ("prompt", "id") and WHOLE_NUMBER.fullmatch(cell) else cell


def read_jsonl(text: str, path: Path, fps: int) -> Iterator[Given]:
    """A JSON object a line: the fields themselves, or a request of an OpenAI batch. Raises BadInput."""
    for where, line in _lines(text, path):
        given = _object(line, where)
        yield where, _request(given, where, fps) if "body" in given or "custom_id" in given else given


def _object(line: str, where: str) -> Json:
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise BadInput(f"{where} is not valid JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadInput(f'{where} must be a JSON object such as {{"prompt": "..."}}, not {line[:40]}')
    return value


def _request(given: Json, where: str, fps: int) -> Json:
    """The fields of a batch request for /v1/videos, see https://developers.openai.com/api/docs/guides/batch.

    `size` is WIDTHxHEIGHT; `seconds` asks for fps frames each, and the one that a video starts with; `model` is
    ignored. The body may hold this package's own fields, too.
    """
    if unknown := [name for name in given if name not in ENVELOPE]:
        raise BadInput(f"{where}: unknown field {unknown[0]!r} beside body; known: {', '.join(ENVELOPE)}")
    body = given.get("body")
    if not isinstance(body, dict):
        raise BadInput(f'{where}: body must be an object such as {{"prompt": "..."}}')
    fields = {name: value for name, value in body.items() if name not in ("model", "size", "seconds")}
    derived = {"id": given.get("custom_id"), **_size(body, where), **_num_frames(body, where, fps)}
    if twice := [name for name in derived if name in fields]:
        raise BadInput(f"{where}: {twice[0]} cannot stand in body beside {STANDS_FOR[twice[0]]}")
    return fields | derived


def _size(body: Json, where: str) -> dict[str, int]:
    if (size := body.get("size")) is None:
        return {}
    if not (isinstance(size, str) and (sides := SIZE.fullmatch(size))):
        raise BadInput(f"{where}: size {size!r} must be WIDTHxHEIGHT, such as 1280x720")
    return {"width": int(sides[1]), "height": int(sides[2])}


def _num_frames(body: Json, where: str, fps: int) -> dict[str, int]:
    if (seconds := body.get("seconds")) is None:
        return {}
    if isinstance(seconds, bool) or not re.fullmatch(r"[1-9][0-9]{0,5}", str(seconds)):
        raise BadInput(f"{where}: seconds {seconds!r} must be a whole number of at least 1")
    return {"num_frames": int(str(seconds)) * fps + 1}


READERS: dict[str, Callable[[str, Path, int], Iterator[Given]]] = {
    ".txt": read_plain,
    ".csv": read_csv,
    ".jsonl": read_jsonl,
}
