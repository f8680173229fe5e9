"""Read a prompt file, .txt or .jsonl, into items that are checked before anything starts."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from jobs.errors import BadInput

Prompt = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
Positive = Annotated[int, Field(ge=1)]


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What an item takes where its line says nothing; `seed` is that of the first item."""

    height: int
    width: int
    num_frames: int
    steps: int
    seed: int = 0


class Line(BaseModel):
    """One line of a .jsonl file."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    prompt: Prompt
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] | None = None
    seed: Annotated[int, Field(ge=0, lt=2**63)] | None = None
    height: Positive | None = None
    width: Positive | None = None
    num_frames: Positive | None = None
    steps: Positive | None = None


class Item(BaseModel):
    """One video to render: its line, with the defaults filled in. `where` names the file and line."""

    model_config = ConfigDict(frozen=True)

    id: str
    prompt: str
    seed: int
    height: int
    width: int
    num_frames: int
    steps: int
    where: str


def read_items(path: Path, defaults: Defaults) -> list[Item]:
    """The items of a prompt file, in order.

    An item without an id is called by its place in the file: 0000, 0001, ... Item number i without a seed takes
    `defaults.seed + i`, so that equal prompts give different videos.

    Raises:
        BadInput: naming the file, and the line where there is one.
    """
    lines = list(_lines(path))
    if not lines:
        raise BadInput(f"{path} has no prompts; write one a line")
    items = [_item(index, where, line, defaults) for index, (where, line) in enumerate(lines)]
    _check_ids(items)
    return items


def _lines(path: Path) -> Iterator[tuple[str, Line]]:
    """The lines that hold a prompt, each with its place."""
    if path.suffix not in READERS:
        raise BadInput(f"{path} must end in {' or '.join(READERS)}")
    read = READERS[path.suffix]
    for number, text in enumerate(_text(path).split("\n"), start=1):
        where = f"{path}, line {number}"
        if line := read(text.strip(), where):
            yield where, line


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise BadInput(f"prompt file {path} does not exist") from None
    except UnicodeDecodeError:
        raise BadInput(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise BadInput(f"cannot read prompt file {path}: {error.strerror}") from error


def _plain(text: str, where: str) -> Line | None:
    return None if not text or text.startswith("#") else Line(prompt=text)


def _json(text: str, where: str) -> Line | None:
    if not text:
        return None
    try:
        return Line.model_validate(_object(text, where))
    except ValidationError as error:
        raise BadInput(f"{where}: {_first_complaint(error)}") from None


def _object(text: str, where: str) -> Any:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInput(f"{where} is not valid JSON: {error.msg} at column {error.colno}") from None
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{where} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise BadInput(f'{where} must be a JSON object such as {{"prompt": "..."}}, not {text[:40]}')
    return value


READERS = {".txt": _plain, ".jsonl": _json}


def _first_complaint(error: ValidationError) -> str:
    """One sentence out of pydantic's report."""
    detail = error.errors()[0]
    field, value = detail["loc"][0], detail["input"]
    if detail["type"] == "extra_forbidden":
        return f"unknown field {field!r}; known: {', '.join(Line.model_fields)}"
    if detail["type"] == "missing":
        return f"field {field!r} is missing"
    if detail["type"] == "string_pattern_mismatch":
        return f"{field} {value!r} is not safe in a file name; use up to 64 letters, digits, '.', '_' and '-'"
    return f"{field} {value!r}: {detail['msg']}"


def _item(index: int, where: str, line: Line, defaults: Defaults) -> Item:
    fallback = vars(defaults) | {"id": f"{index:04d}", "seed": defaults.seed + index}
    return Item(**(fallback | line.model_dump(exclude_none=True)), where=where)


def _check_ids(items: list[Item]) -> None:
    """Ids that differ only in case are the same file name on some file systems."""
    seen: dict[str, Item] = {}
    for item in items:
        other = seen.setdefault(item.id.casefold(), item)
        if other is not item:
            raise BadInput(f"{item.where}: duplicate id {item.id!r}; it was first used in {other.where}")
