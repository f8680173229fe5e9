"""How a running batch stands, by its events: what is done, at what pace, for how long still, and what that costs."""

import time
from collections.abc import Callable, Sequence
from copy import deepcopy

from cluster.events import BatchStopping, Event, GangEvent, ItemDone, ItemFailed, ItemRunning
from jobs.console import duration, figure
from jobs.driver.batch_plan import Plan
from jobs.driver.eta import Eta
from jobs.store.items import RenderItem
from jobs.store.usage import Usage

SHORTEST_S = 1.0  # that tells a pace


class Standing:
    """Takes note of a run's events.

    Args:
        known: videos that were finished or given up before, by the plan.
        usage: what the batch had used before; it goes on here.
        clock: seconds since 1970.
    """

    def __init__(
        self, todo: int, *, noun: str, usage: Usage, known: tuple[int, int] = (0, 0), eta: Eta | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:  # fmt: skip
        self.todo, self.noun, self.usage, self.eta = todo, noun, usage, eta
        self.finished_before, self.given_up_before = known
        self.num_done = self.num_failed = self.num_left = 0  # of this run; those left are for another one
        self._fractions: dict[str, float] = {}
        self._clock = clock
        self._last_done_s = 0.0

    def note(self, event: Event) -> None:
        """Follows what runs, what has ended, and which gangs there are."""
        if self.eta is not None:
            self.eta.note(event)
        if isinstance(event, GangEvent):
            self._note_gang(event)
        if isinstance(event, ItemRunning):
            self.usage.runs(event.gang, self._clock())
            self._fractions[event.item.id] = event.fraction
        elif not isinstance(event, BatchStopping) and event.job:
            self._fractions.pop(event.job.item.id, None)
        if isinstance(event, ItemDone | ItemFailed):
            self.usage.rests(event.gang, self._clock())
        if event.kind == "item_done":
            self.num_done += 1
            self._last_done_s = self._clock()
        if isinstance(event, ItemFailed) and event.kind == "item_failed":
            self.num_left += event.failure.policy.is_left
            self.num_failed += not event.failure.policy.is_left

    def take(self, items: Sequence[RenderItem]) -> None:
        """They have come to the batch, and are to be rendered."""
        self.todo += len(items)
        if self.eta is not None:
            self.eta.take(items)

    def drop(self, item: RenderItem) -> None:
        """It was withdrawn while it waited."""
        self.todo -= 1
        if self.eta is not None:
            self.eta.drop(item)

    def end(self) -> None:
        """No gang is left, and nothing will come any more."""
        self._fractions.clear()
        self.eta = None
        self.usage.end(self._clock())

    @property
    def under_way(self) -> list[str]:
        """The ids of what is running, in their order."""
        return sorted(self._fractions)

    @property
    def progress(self) -> dict[str, float]:
        """The part of each running item that is done."""
        return {item_id: round(fraction, 3) for item_id, fraction in self._fractions.items()}

    @property
    def running(self) -> int:
        """How many are."""
        return len(self._fractions)

    @property
    def total(self) -> int:
        """Of what this run is about."""
        return self.todo + self.finished_before + self.given_up_before

    @property
    def done(self) -> int:
        """Of these."""
        return self.finished_before + self.num_done

    @property
    def failed(self) -> int:
        """Those that were given up."""
        return self.given_up_before + self.num_failed

    @property
    def waiting(self) -> int:
        """Those that are none of these, nor running."""
        return self.total - self.done - self.failed - self.running

    @property
    def completed(self) -> float:
        """Of what is to be rendered, with the parts of what is running."""
        return self.num_done + self.num_failed + self.num_left + sum(self._fractions.values())

    @property
    def fraction(self) -> float:
        """The same as a part of all."""
        return self.completed / self.todo if self.todo else 1.0

    @property
    def left_s(self) -> float | None:
        """How long the rest will take, where that is known."""
        return self.eta.left_s if self.eta else None

    @property
    def rate(self) -> float | None:
        """Videos an hour since the first gang was ready: its start is not counted. None before there is a pace."""
        return pace(self.num_done, self.usage.ready_s, self._last_done_s)

    @property
    def hours(self) -> float:
        """Of all ranks, so far, over all runs."""
        return self.usage.hours(self._clock())

    @property
    def cost(self) -> float | None:
        """Of these hours, where there is a price."""
        return None if self.usage.price is None else self.hours * self.usage.price

    @property
    def pace_words(self) -> list[str]:
        """`340 videos an hour`, and `about 12 min left`, as far as they are known."""
        rate, left_s = self.rate, self.left_s
        words = [per_hour(rate, self.noun)] if rate else []
        return [*words, f"about {duration(left_s)} left"] if left_s else words

    @property
    def spent_words(self) -> list[str]:
        """`3.2 of about 5.1 GPU-hours`, and what they cost where there is a price."""
        return spent_words(self.usage, self._clock(), self.left_s)

    @property
    def words(self) -> list[str]:
        """All of them."""
        return [*self.pace_words, *self.spent_words]

    def _note_gang(self, event: GangEvent) -> None:
        match event.kind:
            case "gang_ready":
                num_ranks, held_s = len(event.hosts or ()), event.held_s or 0.0
                self.usage.ready(event.gang, num_ranks, self._clock(), held_s, is_shared=event.is_shared)
            case "gang_lost" | "gang_closed":
                self.usage.gone(event.gang, self._clock())


def standing_of(plan: Plan, eta: Eta | None = None, *, on_gpus: bool | None = None) -> Standing:
    """That of a batch that is about to be run."""
    usage = deepcopy(plan.known.usage)
    usage.begin(on_gpus=on_gpus, price=plan.options.price)
    known = len(plan.known.finished), len(plan.known.given_up)
    return Standing(len(plan.todo), noun=plan.noun, usage=usage, known=known, eta=eta)


def pace(num_done: int, ready_s: float | None, last_done_s: float) -> float | None:
    """Videos an hour, from the moment that a gang was ready to the end of the last video."""
    if not num_done or ready_s is None or last_done_s - ready_s < SHORTEST_S:
        return None
    return 3600 * num_done / (last_done_s - ready_s)


def per_hour(rate: float, noun: str) -> str:
    """`340 videos an hour`."""
    return f"{figure(rate)} {noun}s an hour"


def spent_words(usage: Usage, now_s: float, left_s: float | None = None) -> list[str]:
    """`3.2 of about 5.1 GPU-hours`, and what they cost where there is a price; nothing before there is any."""
    hours = usage.hours(now_s)
    if not hours:
        return []
    expected = usage.expected_hours(now_s, left_s) if left_s and usage.num_ranks else None
    words = [f"{_of(figure(hours), None if expected is None else figure(expected))} {usage.unit}"]
    if usage.price is not None:
        total = None if expected is None else f"{expected * usage.price:,.2f}"
        words.append(f"cost {_of(f'{hours * usage.price:,.2f}', total)}")
    return words


def _of(so_far: str, expected: str | None) -> str:
    return so_far if expected is None else f"{so_far} of about {expected}"
