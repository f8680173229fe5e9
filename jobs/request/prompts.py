"""Read a prompt file (text, tables, JSON) into items that are checked before anything starts."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError
from pydantic_core import PydanticCustomError

from jobs.errors import BadInput
from jobs.models.family import Height, Json, NumFrames, Scale, Steps, Width
from jobs.request.prompt_lines import READERS, Given, field_list
from jobs.request.prompt_text import is_blank, read_text


def _seen(text: str) -> str:
    if is_blank(text):
        raise PydanticCustomError("blank", "there is nothing in it that can be seen")
    return text


# A NUL cannot stand in an MP4's tags.
Prompt = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, pattern=r"^[^\x00]*$"), AfterValidator(_seen)
]
MethodName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
NegativePrompt = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[^\x00]*$")]
MOST_LINES = 20


@dataclass(frozen=True, kw_only=True)
class Defaults:
    """What an item takes where its line says nothing; `seed` is that of the first item.

    `fps` is used for lines that give seconds instead of frames; None of images, which have none.
    """

    height: int
    width: int
    num_frames: int
    steps: int
    seed: int = 0
    fps: int | None = 24


class Item(BaseModel):
    """One video to render: its line, with the defaults filled in.

    `method`, `guidance` and `negative_prompt` are its own, where it has any; `export_as` is what an export calls it
    instead of by its prompt; `where` names the file and line.
    """

    model_config = ConfigDict(strict=True, frozen=True)

    prompt: Prompt
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    height: Height
    width: Width
    num_frames: NumFrames
    steps: Steps
    method: MethodName | None = None
    guidance: Scale | None = None
    negative_prompt: NegativePrompt | None = None
    export_as: Prompt | None = None
    where: str


# What a line may say.
FIELDS = dict.fromkeys(name for name in Item.model_fields if name != "where")


def read_items(path: Path, defaults: Defaults, *, copies: int = 1) -> list[Item]:
    """The items of a prompt file, in order.

    An item without an id is called by its place in the file: 0000, 0001, ... Item number i without a seed takes
    `defaults.seed + i`, so that equal prompts give different videos. Of several `copies` of a line each has a number
    behind its id, and the next seed.

    Raises:
        BadInput: naming the file, and the line where there is one.
    """
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise BadInput(f"{path} must end in {', '.join(list(READERS)[:-1])} or {list(READERS)[-1]}")
    fallback = {name: value for name, value in vars(defaults).items() if name in FIELDS}
    lines = list(READERS[suffix](read_text(path), path, defaults.fps))
    _check_fields(lines, path)
    items = [
        _copied(_item(index, where, given, fallback, copies), copy, copies)
        for index, (where, given) in enumerate(lines)
        for copy in range(copies)
    ]
    if not items:
        raise BadInput(f"{path} has no prompts; write one a line")
    _check_ids(items)
    return items


def _check_fields(lines: list[Given], path: Path) -> None:
    """All unknown fields are named at once, each with the first line that has it."""
    unknown: dict[str, str] = {}
    for where, given in lines:
        if not given.keys() <= FIELDS.keys():
            unknown |= {name: where for name in given if name not in FIELDS and name not in unknown}
    if unknown:
        first, *others = dict.fromkeys(unknown.values())
        names = {where: field_list([name for name in unknown if unknown[name] == where]) for where in (first, *others)}
        rest = "".join(f"; {where.removeprefix(f'{path}, ')}: {names[where]}" for where in others[:MOST_LINES])
        raise BadInput(f"{first}: unknown {names[first]}{rest}; known: {', '.join(FIELDS)}")


def _copied(item: Item, copy: int, copies: int) -> Item:
    """One of several copies of an item. Raises BadInput for an id that then is too long."""
    if copies == 1:
        return item
    try:
        return Item.model_validate(item.model_dump() | {"id": f"{item.id}-{copy}", "seed": item.seed + copy})
    except ValidationError as error:
        raise BadInput(f"{item.where}: {_first_complaint(error)}") from None


def _item(index: int, where: str, given: Json, fallback: dict[str, int], copies: int) -> Item:
    own = {name: value for name, each in given.items() if (value := _value(name, each)) is not None}
    numbered = {"id": f"{index:04d}", "seed": fallback["seed"] + copies * index}
    try:
        return Item.model_validate(fallback | numbered | own | {"where": where})
    except ValidationError as error:
        raise BadInput(f"{where}: {_first_complaint(error)}") from None


def _value(name: str, value: JsonValue) -> JsonValue:
    """What is meant: pandas makes floats of a column's whole numbers, and NaN of what is missing; an id is a text."""
    if isinstance(value, float):
        value = None if math.isnan(value) else int(value) if value.is_integer() and abs(value) < 2**53 else value
    return str(value) if name == "id" and type(value) is int else value


def _first_complaint(error: ValidationError) -> str:
    """One sentence out of pydantic's report."""
    detail = error.errors()[0]
    field, value = detail["loc"][0], detail["input"]
    if detail["type"] == "missing":
        return f"field {field!r} is missing"
    if detail["type"] == "string_pattern_mismatch" and field != "id":
        return f"{field} {value!r} has a NUL character"
    if detail["type"] == "string_pattern_mismatch":
        return f"{field} {value!r} is not safe in a file name; use up to 64 letters, digits, '.', '_' and '-'"
    return f"{field} {value!r}: {detail['msg']}"


def _check_ids(items: list[Item]) -> None:
    """Ids that differ only in case are the same file name on some file systems."""
    seen: dict[str, Item] = {}
    for item in items:
        other = seen.setdefault(item.id.casefold(), item)
        if other is not item:
            raise BadInput(f"{item.where}: duplicate id {item.id!r}; it was first used in {other.where}")
