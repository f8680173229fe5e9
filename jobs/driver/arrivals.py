"""Where the queue of a running batch gets further items from: what is added to it meanwhile, and what is withdrawn."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from cluster.events import Outcome
from cluster.session import Result
from jobs.driver.batch_plan import Plan
from jobs.driver.lines import as_line, check_lines, check_passes
from jobs.driver.recorder import Recorder
from jobs.driver.view import BatchView
from jobs.store.additions import Additions
from jobs.store.items import RenderItem
from jobs.store.lock import DriverLock
from jobs.store.members import Members
from parallel.layout import Layout

if TYPE_CHECKING:  # it imports Ray, which a batch that is finished does not need
    from cluster.intake import Intake

logger = logging.getLogger(__name__)


class Follower(Protocol):
    """Who is told of what comes to a running batch, and of what goes while it waits."""

    def take(self, items: Sequence[RenderItem]) -> None: ...
    def drop(self, item: RenderItem) -> None: ...


class Arrivals:
    """The source of a queue that runs the items of a plan.

    Args:
        layout: that of the gangs, which further items must fit.
        view, recorder: who show and write down what else becomes of what was added or withdrawn.
        followers: all who are told of what comes and goes, in this order.
        stays: whether to wait for more when nothing is left.
    """

    def __init__(
        self,
        plan: Plan,
        lock: DriverLock,
        layout: Layout,
        view: BatchView,
        recorder: Recorder,
        followers: Sequence[Follower],
        stays: Callable[[], bool] = lambda: False,
    ) -> None:
        self._plan, self._lock, self._layout = plan, lock, layout
        self._view, self._recorder, self._followers, self._stays = view, recorder, followers, stays
        self._additions = Additions(plan.storage)
        self._members: Members | None = None  # names of many files take a while, and often nothing comes
        self._come: dict[str, RenderItem] = {}
        self._withdrawn: set[str] = set()
        self._due_s = 0.0  # of time.monotonic()

    @property
    def keeps_gangs(self) -> bool:
        return self._stays()

    def __call__(self, intake: "Intake[RenderItem, Result]") -> bool:
        stays = self._stays()
        if intake.is_idle and not stays:
            return self._look_once_more(intake)
        if (now := time.monotonic()) >= self._due_s:
            self._due_s = now + self._plan.storage.flush_period_s
            self._take_in(intake)
        return True

    def at_the_end(self, outcomes: Sequence[Outcome]) -> tuple[Plan, list[Outcome]]:
        """The plan and the outcomes with what has come, and without what was withdrawn."""
        items, batch = (self._with_changes(items) for items in (self._plan.items, self._plan.batch))
        plan = replace(self._plan, items=items, batch=batch)
        return plan, [outcome for outcome in outcomes if outcome.item.id not in self._withdrawn]

    def _with_changes(self, items: Sequence[RenderItem]) -> list[RenderItem]:
        each = {item.id: item for item in items} | self._come
        return [item for item_id, item in each.items() if item_id not in self._withdrawn]

    def _look_once_more(self, intake: "Intake[RenderItem, Result]") -> bool:
        """Whoever adds something looks at the lock after that: it either sees the end coming, or is seen here."""
        try:
            self._lock.say_ending(True)
            self._take_in(intake)
            if not intake.is_idle:
                self._lock.say_ending(False)
        except OSError as error:
            logger.warning("whether anything was added is not known: %s", error)
        return not intake.is_idle

    def _take_in(self, intake: "Intake[RenderItem, Result]") -> None:
        """A storage that does not answer is asked again."""
        try:
            changes = self._additions.fresh()
        except OSError as error:
            logger.warning("what was added is not known yet: %s", error)
            return
        items: dict[str, RenderItem] = {}
        for line in changes:
            if line["e"] == "add":
                items[line["id"]] = line["item"]
            elif items.pop(line["id"], None) is None:
                self._withdraw(line["id"], intake)
        if new := [item for item in items.values() if self._is_new(item) and self._fits(item)]:
            self._add(new, intake)

    def _add(self, new: Sequence[RenderItem], intake: "Intake[RenderItem, Result]") -> None:
        for item in new:
            self._known().take(item)
            self._come[item.id] = item
            self._withdrawn.discard(item.id)
        for each in self._followers:
            each.take(new)
        intake.add(new)

    def _is_new(self, item: RenderItem) -> bool:
        there = self._known().get(item.id)
        if there is not None and there != item:
            self._view.say(f"{item.id}: left out, as the batch has another item of that id")
        elif there is None and (other := self._known().same_file(item)):
            self._view.say(f"{item.id}: left out, as it would be written to the same file as {other}")
        else:
            return there is None
        return False

    def _fits(self, item: RenderItem) -> bool:
        """Whether these gangs can render it; whoever has added it may have known others."""
        plan, method = self._plan, item.method
        if method is not None and method not in plan.settings.methods:
            self._view.say(f"{item.id}: left out, as there is no method {method}")
            return False
        try:
            line = as_line(item)
            check_lines([line], plan.facts, plan.options, plan.settings, self._layout)
            check_passes([line], plan.facts, plan.settings, parts=self._layout.cfg)
        except ValueError as error:
            self._view.say(f"{item.id}: left out: {error}")
            return False
        return True

    def _withdraw(self, item_id: str, intake: "Intake[RenderItem, Result]") -> None:
        item = self._known().get(item_id)
        if item is None or item.id != item_id:
            return
        waiting = intake.withdraw(lambda each: each.id == item_id)
        if waiting:
            for each in self._followers:
                each.drop(item)
        else:
            self._recorder.withdraw(item)
        self._known().drop(item_id)
        self._withdrawn.add(item_id)

    def _known(self) -> Members:
        if self._members is None:
            self._members = Members()
            for item in self._plan.batch:
                self._members.take(item)
        return self._members
