"""What programs are told of a run: its progress as lines, and, once, how it has ended."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cluster.events import Event
from jobs.console import visible
from jobs.driver.batch_plan import Plan
from jobs.driver.on_end import HURRIED_S, LIMIT_S, Notice, notice_of
from jobs.driver.progress import HOW, JSONL, ProgressLines, counted
from jobs.driver.standing import Standing, standing_of
from jobs.errors import INTERRUPTED, UNFORESEEN, JobError
from jobs.options.batch import RenderOptions
from jobs.store.items import RenderItem


class Told:
    """Those who want to know, by the options of a run."""

    def __init__(self, options: RenderOptions) -> None:
        self._options = options
        self._lines = ProgressLines(_print) if options.progress == JSONL else None
        self._notice: Notice | None = None
        self._plan: Plan | None = None
        self._standing: Standing | None = None
        self._has_ended = False

    def check(self) -> None:
        """Raises BadInput for what cannot be told at the end."""
        self._notice = notice_of(self._options.on_end) if self._options.on_end is not None else None

    def begin(self, plan: Plan) -> None:
        """The batch has been checked."""
        self._plan, self._standing = plan, standing_of(plan)
        if self._lines:
            self._lines.begin(plan, self._standing.usage.price)

    def follow(self, plan: Plan, standing: Standing) -> None:
        """The batch is about to be run by this plan, which may be newer."""
        self._plan, self._standing = plan, standing

    def show(self, event: Event) -> None:
        """One event of the batch, which the standing has taken note of."""
        if self._lines and self._plan:
            self._lines.show(event, self._plan)

    def tick(self) -> None:
        """Several times a second."""
        if self._lines and self._standing:
            self._lines.tick(self._standing)

    def take(self, items: Sequence[RenderItem]) -> None:
        """They have come to the running batch."""
        if self._lines:
            self._lines.change("added", items)

    def drop(self, item: RenderItem) -> None:
        """It was withdrawn while it waited."""
        if self._lines:
            self._lines.change("withdrawn", [item])

    @property
    def spent_words(self) -> list[str]:
        """What the batch has used, over all runs."""
        return self._standing.spent_words if self._standing else []

    def end(self, code: int, error: str | None = None, *, hurried: bool = False) -> None:
        """The run ends with this exit code. Only the first call counts; nothing that fails here changes anything."""
        if self._has_ended:
            return
        self._has_ended = True
        if self._lines and self._standing:
            self._lines.progress(self._standing)
        if self._lines:
            self._lines.say("end", **self._facts(code, error))
        if self._notice and self._plan:
            sentence = self._notice.send(self._facts(code, error), HURRIED_S if hurried else LIMIT_S)
            if sentence:
                print(f"resca: {visible(sentence)}", file=sys.stderr, flush=True)

    def end_by(self, error: BaseException) -> None:
        """The run ends by an exception."""
        is_signal = isinstance(error, KeyboardInterrupt | SystemExit)
        self.end(_code(error), None if is_signal else str(error).strip() or type(error).__name__, hurried=is_signal)

    def _facts(self, code: int, error: str | None) -> dict[str, object]:
        facts: dict[str, object] = {"how": HOW.get(code, "unforeseen"), "exit_code": code, "error": error}
        if self._plan and self._standing:
            facts |= {"batch": str(self._plan.storage), "model": self._plan.facts.name, **counted(self._standing)}
        return {name: value for name, value in facts.items() if value is not None}


@contextmanager
def telling(options: RenderOptions) -> Iterator[Told]:
    """Tells of the block, whichever way it is left by an exception; else `end` has to be called. Raises BadInput."""
    told = Told(options)
    try:
        told.check()
        yield told
    except BaseException as error:
        told.end_by(error)
        raise


def _code(error: BaseException) -> int:
    if isinstance(error, JobError):
        return error.exit_code
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else UNFORESEEN
    return INTERRUPTED if isinstance(error, KeyboardInterrupt) else UNFORESEEN


def _print(line: str) -> None:
    print(line, flush=True)
