"""The lines of `--progress jsonl`: what programs are told of a batch while it runs, one JSON object a line."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Literal, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict  # pydantic reads that of Python 3.11 not

from cluster.events import Event, GangEvent, ItemDone, ItemEvent, ItemFailed, ItemRunning
from jobs.errors import BAD_INPUT, DONE, HUNG_UP, INFRASTRUCTURE, INTERRUPTED, PARTIAL, TERMINATED, UNFORESEEN
from jobs.store.items import RenderItem, Sidecar
from jobs.store.ledger_lines import line_text
from jobs.store.medium import MediumName

if TYPE_CHECKING:  # who only reads lines needs neither
    from jobs.driver.batch_plan import Plan
    from jobs.driver.standing import Standing

JSONL = "jsonl"  # as --progress has it
EVERY_S, LATEST_S = 1.0, 10.0  # between lines of progress: at least, and at most where nothing happens
How = Literal["done", "partial", "refused", "stopped", "infrastructure", "unforeseen"]
HOW: dict[int, How] = {
    **{DONE: "done", PARTIAL: "partial", BAD_INPUT: "refused", INFRASTRUCTURE: "infrastructure"},
    **{INTERRUPTED: "stopped", TERMINATED: "stopped", HUNG_UP: "stopped", UNFORESEEN: "unforeseen"},
}


class Line(TypedDict):
    """What every line has."""

    __pydantic_config__ = ConfigDict(extra="forbid")  # pyright: ignore[reportGeneralTypeIssues]

    t: float
    """Seconds since 1970."""


class BeginLine(Line):
    """A batch has been checked and begins."""

    e: Literal["begin"]
    batch: str
    """Its directory or URL."""
    model: str
    method: str
    """Several are separated by commas."""
    medium: MediumName
    total: int
    """Videos of this run; of these `done` were finished before, `failed` given up, and `todo` are to be rendered."""
    done: int
    failed: int
    todo: int
    price: NotRequired[float]
    """Of an hour of a rank."""


class GangLine(Line):
    """Something happened to a gang."""

    e: Literal["gang"]
    gang: int
    status: Literal["starting", "waiting", "ready", "lost", "closed"]
    error: NotRequired[str]
    """Why."""


class ItemLine(Line):
    """A video is begun, is to be begun again, is finished, is given up, or is left for another run (`waiting`)."""

    e: Literal["item"]
    id: str
    status: Literal["running", "retrying", "done", "failed", "waiting"]
    attempt: int
    gang: NotRequired[int]
    error: NotRequired[str]
    video: NotRequired[str]
    """Where the finished one lies: a path or URL."""
    seconds: NotRequired[float]
    """From prompt to file."""


class ChangeLine(Line):
    """Videos have come to the running batch, or were withdrawn while they waited."""

    e: Literal["added", "withdrawn"]
    ids: list[str]


class Counted(Line):
    """How a batch stands."""

    total: int
    done: int
    failed: int
    waiting: int
    """Neither done nor given up, nor running."""
    eta_s: NotRequired[float]
    """Seconds until the last video ends."""
    rate: NotRequired[float]
    """Videos an hour since the first gang was ready."""
    unit: Literal["GPU-hours", "rank-hours"]
    hours: float
    """So many, over all runs of the batch."""
    cost: NotRequired[float]
    """Of these hours, where there is a price."""


class ProgressLine(Counted):
    """At most once a second, and at least every ten."""

    e: Literal["progress"]
    running: int
    fraction: float
    """Of what this run has to render, 0 to 1."""


class EndLine(Line):
    """The command ends. Counts are there if the batch had been checked."""

    e: Literal["end"]
    how: How
    exit_code: int
    error: NotRequired[str]
    """The sentence on standard error."""
    batch: NotRequired[str]
    model: NotRequired[str]
    total: NotRequired[int]
    done: NotRequired[int]
    failed: NotRequired[int]
    waiting: NotRequired[int]
    rate: NotRequired[float]
    unit: NotRequired[Literal["GPU-hours", "rank-hours"]]
    hours: NotRequired[float]
    cost: NotRequired[float]


AnyLine = BeginLine | GangLine | ItemLine | ChangeLine | ProgressLine | EndLine
LINE: TypeAdapter[AnyLine] = TypeAdapter(Annotated[AnyLine, Field(discriminator="e")])


def is_line(text: str) -> bool:
    """Whether a text is one of these lines."""
    try:
        LINE.validate_json(text)
    except ValidationError:
        return False
    return True


class ProgressLines:
    """Writes the lines of one batch.

    Args:
        write: takes a line without its end.
    """

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._said_s = 0.0
        self._has_news = False

    def say(self, kind: str, **facts: object) -> None:
        """Write a line; facts that are None are left out."""
        self._write(line_text(kind, **facts))

    def begin(self, plan: "Plan", price: float | None) -> None:
        """The batch begins; where nothing is left to render, its end comes next."""
        self.say(
            "begin",
            batch=str(plan.storage),
            model=plan.facts.name,
            method=", ".join(plan.method_names),
            medium=plan.facts.family.medium.name,
            total=len(plan.items),
            done=len(plan.known.finished),
            failed=len(plan.known.given_up),
            todo=len(plan.todo),
            price=price,
        )

    def show(self, event: Event, plan: "Plan") -> None:
        """One event of the batch."""
        self._has_news |= event.kind != "item_progress"
        match event:
            case GangEvent():
                self.say("gang", gang=event.gang, status=event.kind.removeprefix("gang_"), error=event.error)
            case ItemRunning(kind="item_started"):
                self._say_item(event, "running")
            case ItemDone():
                seconds = round(Sidecar.model_validate(event.result).seconds.total, 3)
                video = plan.storage.where(plan.settings.file(event.item))
                self._say_item(event, "done", video=video, seconds=seconds)
            case ItemFailed(kind="item_retried"):
                self._say_item(event, "retrying", error=event.error)
            case ItemFailed():
                self._say_item(event, "waiting" if event.failure.policy.is_left else "failed", error=event.error)

    def change(self, kind: Literal["added", "withdrawn"], items: Sequence[RenderItem]) -> None:
        """Videos have come or gone."""
        self._has_news = True
        self.say(kind, ids=[item.id for item in items])

    def tick(self, standing: "Standing") -> None:
        """Several times a second: say how the batch stands, if it is time."""
        since_s = time.monotonic() - self._said_s
        if since_s >= (EVERY_S if self._has_news else LATEST_S):
            self.progress(standing)

    def progress(self, standing: "Standing") -> None:
        """How the batch stands."""
        self._said_s, self._has_news = time.monotonic(), False
        self.say("progress", running=standing.running, fraction=round(standing.fraction, 4), **counted(standing))

    def _say_item(self, event: ItemEvent, status: str, **facts: object) -> None:
        self.say("item", id=event.item.id, status=status, attempt=event.attempts, gang=event.gang, **facts)


def counted(standing: "Standing") -> dict[str, object]:
    """What lines of progress and of the end have in common."""
    rounded = {"eta_s": standing.left_s, "rate": standing.rate, "hours": standing.hours, "cost": standing.cost}
    return {
        **{"total": standing.total, "done": standing.done, "failed": standing.failed, "waiting": standing.waiting},
        **{name: None if value is None else round(value, 4) for name, value in rounded.items()},
        "unit": standing.usage.unit,
    }
