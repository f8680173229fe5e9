"""The lines of a ledger, as their readers look at them; a newer version may have further kinds, and further facts."""

import json
import time
from typing import Annotated, Literal, NotRequired

from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter
from typing_extensions import TypedDict  # pydantic reads that of Python 3.11 not

from jobs.store.items import RenderItem, Seconds
from jobs.store.medium import MediumName

LATEST_S = 1e10  # of a time that is none


def line_text(kind: str, **facts: object) -> str:
    """A line, without its end, of what happens now; facts that are None are left out."""
    known = {key: value for key, value in facts.items() if value is not None}
    return json.dumps({"e": kind, "t": round(time.time(), 3), **known}, separators=(",", ":"))


def _of_all_stages(seconds: dict[str, float]) -> dict[str, float]:
    if missing := Seconds.model_fields.keys() - seconds:
        raise ValueError(f"seconds of {', '.join(sorted(missing))} are missing")
    return seconds


class Line(TypedDict):
    """What every line has; of the kinds of lines, what their readers look at."""

    __pydantic_config__ = ConfigDict(extra="allow")  # pyright: ignore[reportGeneralTypeIssues]

    t: Annotated[float, Field(ge=0, le=LATEST_S)]
    """Seconds since 1970."""


class BeginLine(Line):
    """A driver begins."""

    e: Literal["begin"]
    total: Annotated[int, Field(ge=0)]
    added: NotRequired[Annotated[int, Field(ge=0)]]  # how many of the total were added
    model: NotRequired[str]
    method: NotRequired[str]
    medium: NotRequired[MediumName]  # of images alone
    retry: NotRequired[bool]
    gpus: NotRequired[bool]  # whether each rank has one
    price: NotRequired[Annotated[float, Field(ge=0)]]  # of an hour of a rank


class EndLine(Line):
    """A driver ends, and has the time to say so."""

    e: Literal["end"]
    how: str


class GangLine(Line):
    """A gang has come or gone."""

    e: Literal["gang_ready", "gang_lost", "gang_closed"]
    g: NotRequired[int]  # gang
    error: NotRequired[str]
    hosts: NotRequired[list[str]]  # of each rank
    held: NotRequired[Annotated[float, Field(ge=0, le=LATEST_S)]]  # seconds from its place to being ready
    shared: NotRequired[bool]  # other batches may use it, too


class ItemLine(Line):
    """An item is begun, is to be begun again, is given up, or is left for another driver."""

    e: Literal["start", "again", "fail", "left"]
    id: str
    n: NotRequired[int]  # attempts
    g: NotRequired[int]  # gang
    why: NotRequired[str]
    error: NotRequired[str]


class DoneLine(Line):
    """A video is finished. A ledger of a hundred thousand is read in a second: its keys are short."""

    e: Literal["done"]
    id: str
    n: NotRequired[int]
    g: NotRequired[int]
    stamp: NotRequired[str]
    name: Annotated[str, Field(pattern=r"^videos/[^/\\]+$")]
    fp: str
    sha: str
    bytes: int
    side: NotRequired[int]  # bytes of the sidecar, which earlier versions do not tell
    s: Annotated[dict[str, float], AfterValidator(_of_all_stages)]
    dense: int
    sparse: int
    flops: float
    full: float
    dev: str
    ranks: int
    medium: NotRequired[MediumName]  # of images alone
    poster: NotRequired[bool]  # whether a small picture lies beside it


class AddLine(Line):
    """An item has come to the batch while it was there already."""

    e: Literal["add"]
    id: str
    item: RenderItem
    by: str  # a word of whoever added it, by which it knows its own lines again
    key: NotRequired[str]  # what it calls the request, so that it can be made again


class WithdrawLine(Line):
    """An item that was added is not to be rendered any more."""

    e: Literal["withdraw"]
    id: str
    by: str


AnyLine = BeginLine | EndLine | GangLine | ItemLine | DoneLine | AddLine | WithdrawLine
LINE: TypeAdapter[AnyLine] = TypeAdapter(Annotated[AnyLine, Field(discriminator="e")])
UNKNOWN = "union_tag_invalid"  # of a line of a kind that another version has
