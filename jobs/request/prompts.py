"""Read a prompt file (text, tables, JSON) into items that are checked before anything starts."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, JsonValue, StringConstraints, ValidationError
from pydantic_core import PydanticCustomError

from jobs.errors import BadInput
from jobs.models.family import Fps, Height, Json, NumFrames, Scale, Steps, Width
from jobs.request.prompt_lines import READERS, Given, field_list, read_request
from jobs.request.prompt_text import is_blank, read_text
from jobs.store.items import FileName, Id, Priority, stem_of


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
OF_FILES = {"id": 64, "output": 100}  # what names files, and how long it may be


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

    `method`, `guidance`, `negative_prompt` and `fps` are its own, where it has any; `priority`, `output` and
    `export_as` are as of a `RenderItem`; `where` names the file and line.
    """

    model_config = ConfigDict(strict=True, frozen=True)

    prompt: Prompt
    id: Id
    seed: Annotated[int, Field(ge=0, lt=2**63)]
    height: Height
    width: Width
    num_frames: NumFrames
    steps: Steps
    method: MethodName | None = None
    guidance: Scale | None = None
    negative_prompt: NegativePrompt | None = None
    fps: Fps | None = None
    priority: Priority | None = None
    output: FileName | None = None
    export_as: Prompt | None = None
    where: str


# What a line may say.
FIELDS = dict.fromkeys(name for name in Item.model_fields if name != "where")


@dataclass(frozen=True, kw_only=True)
class Numbering:
    """How lines are called that do not say it, and which seeds they have.

    Args:
        first: the number of the first line.
        copies: of each line, with seeds that follow each other.
        seeds: each line is rendered with each of them.
        seed_of: the seed that an id has already, of a batch that is added to.
    """

    first: int = 0
    copies: int = 1
    seeds: tuple[int, ...] = ()
    seed_of: Callable[[str], int | None] = lambda item_id: None

    @property
    def group(self) -> int:
        """How many items there are of each line."""
        return len(self.seeds) or self.copies

    def variants(self, seed: int) -> list[tuple[str, int]]:
        """Of a line with this seed: what stands behind the id of each item, and its seed."""
        if self.seeds:
            return [(f"-{each}", each) for each in self.seeds]
        return [(f"-{copy}", seed + copy) for copy in range(self.copies)] if self.copies > 1 else [("", seed)]


ONCE = Numbering()


def read_items(path: Path, defaults: Defaults, *, copies: int = 1) -> list[Item]:
    """The items of a prompt file, in order, as `items_of` makes them of its lines. Raises BadInput."""
    items = items_of(read_lines(path, defaults.fps), path, defaults, Numbering(copies=copies))
    if not items:
        raise BadInput(f"{path} has no prompts; write one a line")
    return items


def read_lines(path: Path, fps: int | None) -> list[Given]:
    """The lines of a prompt file as they are given. Raises BadInput, naming the file, and the line if there is one."""
    suffix = path.suffix.lower()
    if suffix not in READERS:
        raise BadInput(f"{path} must end in {', '.join(list(READERS)[:-1])} or {list(READERS)[-1]}")
    return list(READERS[suffix](read_text(path), path, fps))


def items_of(lines: list[Given], path: Path, defaults: Defaults, numbering: Numbering = ONCE) -> list[Item]:
    """The items of lines that come from a file, in order.

    An item without an id is called by its place in the file: 0000, 0001, ... Item number i without a seed takes
    `defaults.seed + i`, so that equal prompts give different videos. Of several copies of a line each has a number
    behind its id, and the next seed; of several seeds each has its seed there. Raises BadInput, naming the line.
    """
    _check_fields(lines, path)
    fallback = {name: getattr(defaults, name) for name in ("height", "width", "num_frames", "steps", "seed")}
    items = [
        item
        for number, (where, given) in enumerate(lines, numbering.first)
        for item in _variants(where, given, number, fallback, numbering)
    ]
    _check_ids(items)
    return items


def read_item(body: Json, item_id: str, defaults: Defaults, *, where: str) -> Item:
    """The item that the body of a single request to OpenAI's video API asks for. Raises BadInput."""
    [item] = items_of([(where, read_request(body, item_id, where, defaults.fps))], Path(where), defaults)
    return item


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


def _variants(where: str, given: Json, number: int, fallback: dict[str, int], numbering: Numbering) -> Iterator[Item]:
    """The items of one line. Raises BadInput, as for an id that is too long with what stands behind it."""
    own = {name: value for name, each in given.items() if (value := _value(name, each)) is not None}
    if numbering.seeds and "seed" in own:
        raise BadInput(f"{where} has a seed of its own; leave it out, or --seeds")
    numbered = {"id": f"{number:04d}", "seed": fallback["seed"] + numbering.copies * number}
    item = item_of(where, fallback | numbered | own)
    for behind, seed in numbering.variants(item.seed):
        item_id = f"{item.id}{behind}"
        there = None if numbering.seeds or "seed" in own else numbering.seed_of(item_id)
        named = {"id": item_id, "seed": seed if there is None else there}
        if item.output and behind:
            named["output"] = f"{stem_of(item.output)}{behind}"
        yield item if not behind and there is None else item_of(where, item.model_dump() | named)


def item_of(where: str, line: Mapping[str, object]) -> Item:
    """One item of all that its line says or is taken to say. Raises BadInput, naming the line."""
    try:
        return Item.model_validate({**line, "where": where})
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
    field, value = str(detail["loc"][0]), detail["input"]
    if detail["type"] == "missing":
        return f"field {field!r} is missing"
    if detail["type"] == "string_pattern_mismatch" and field not in OF_FILES:
        return f"{field} {value!r} has a NUL character"
    if detail["type"] == "string_pattern_mismatch":
        most = OF_FILES[field]
        return f"{field} {value!r} is not safe in a file name; use up to {most} letters, digits, '.', '_' and '-'"
    return f"{field} {value!r}: {detail['msg']}"


def _check_ids(items: list[Item]) -> None:
    """Ids that differ only in case are the same file name on some file systems; so are names of one's own."""
    ids: dict[str, Item] = {}
    outputs: dict[str, Item] = {}
    for item in items:
        other = ids.setdefault(item.id.casefold(), item)
        if other is not item:
            raise BadInput(f"{item.where}: duplicate id {item.id!r}; it was first used in {other.where}")
        if item.output and (other := outputs.setdefault(stem_of(item.output).casefold(), item)) is not item:
            raise BadInput(f"{item.where}: duplicate output {item.output!r}; it was first used in {other.where}")
