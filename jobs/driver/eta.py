"""How long a running batch will still take: as predicted by what has finished, kind of video by kind of video."""

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from cluster.events import BatchStopping, Event, GangEvent, ItemDone, ItemRunning
from jobs.driver.expected import LATEST, Expected, Kind
from jobs.store.items import RenderItem, Sidecar


@dataclass(kw_only=True)
class Running:
    """A video under way: of which kind, on which gang, since when, and how far it is."""

    kind: Kind
    gang: int | None
    since_s: float
    fraction: float = 0.0


class First(NamedTuple):
    """What passed beside the seconds of a gang's first video of a kind, and how many passes were counted there."""

    beside_s: float
    passes_counted: float


class Eta:
    """Takes note of a batch's events.

    Args:
        expected: what videos take; it learns from those that end.
        clock: that by which events come.
    """

    def __init__(
        self, items: Iterable[RenderItem], expected: Expected, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._expected, self._clock = expected, clock
        self._waiting = Counter(map(expected.kind_of, items))
        self._running: dict[str, Running] = {}
        # What passes between two events beside a video's own seconds: more, where a gang meets a kind for the first
        # time and counts its FLOPs.
        self._beside: deque[float] = deque(maxlen=LATEST)
        self._beside_first: defaultdict[str | None, deque[First]] = defaultdict(lambda: deque(maxlen=LATEST))
        self._met: defaultdict[Kind, set[int | None]] = defaultdict(set)  # the gangs that know a kind
        self._gangs: set[int] = set()

    def note(self, event: Event) -> None:
        """Follows what runs, what waits and what has finished."""
        match event:
            case ItemRunning(kind="item_started"):
                kind = self._expected.kind_of(event.item)
                self._waiting[kind] -= 1
                self._running[event.item.id] = Running(kind=kind, gang=event.gang, since_s=self._clock())
            case ItemRunning():
                if run := self._running.get(event.item.id):
                    run.fraction = event.fraction
            case GangEvent(kind="gang_ready"):
                self._gangs.add(event.gang)
            case GangEvent(kind="gang_lost" | "gang_closed"):
                self._gangs.discard(event.gang)
                for gangs in self._met.values():
                    gangs.discard(event.gang)
            case ItemDone():
                self._finish(event)
            case GangEvent() | BatchStopping():
                pass
            case _:
                self._fail(event.item, goes_on=event.kind == "item_retried")

    def take(self, items: Iterable[RenderItem]) -> None:
        """They have come to the batch, and wait."""
        self._waiting.update(map(self._expected.kind_of, items))

    def drop(self, item: RenderItem) -> None:
        """It was withdrawn while it waited."""
        self._waiting[self._expected.kind_of(item)] -= 1

    @property
    def left_s(self) -> float | None:
        """Until the last video ends; None before any has, in this run or an earlier one."""
        if not self._expected.num_finished:
            return None
        kinds = {*self._waiting, *(run.kind for run in self._running.values())}
        seconds_of = {kind: self._seconds(kind) for kind in kinds}
        more_of = {kind: self._more_s(kind) for kind in kinds}
        known = self._known_by()
        each = [self._rest_s(run, seconds_of[run.kind], more_of[run.kind]) for run in self._running.values()]
        waiting = [(kind, number) for kind, number in self._waiting.items() if number > 0]
        firsts = sum(
            more_of[kind] * min(number, max(0, len(self._gangs) - len(known[kind]))) for kind, number in waiting
        )
        total = sum(each) + sum(seconds_of[kind] * number for kind, number in waiting) + firsts
        alone = (seconds_of[kind] + (0.0 if known[kind] else more_of[kind]) for kind, _ in waiting)
        return max(total / max(1, len(self._gangs)), max([*each, *alone], default=0.0))

    def _rest_s(self, run: Running, seconds: float, more_s: float) -> float:
        """What is left of a running video: by its steps, or, as more comes after them, by the clock."""
        if run.gang in self._met[run.kind]:
            more_s = 0.0
        by_steps = seconds * (1 - run.fraction) + (more_s if run.fraction < 1 else 0.0)
        return max(by_steps, seconds + more_s - (self._clock() - run.since_s))

    def _finish(self, event: ItemDone) -> None:
        run, seconds = self._running.pop(event.item.id, None), Sidecar.model_validate(event.result).seconds
        if run is None or not seconds.denoise:
            return
        self._expected.note(run.kind, seconds)
        is_first = event.gang not in self._met[run.kind]
        self._met[run.kind].add(event.gang)
        beside_s = self._clock() - run.since_s - seconds.total
        if is_first:
            first = First(beside_s, self._expected.passes_counted(run.kind))
            self._beside_first[run.kind.method].append(first)
        else:
            self._beside.append(beside_s)

    def _fail(self, item: RenderItem, *, goes_on: bool) -> None:
        run = self._running.pop(item.id, None)
        self._waiting[self._expected.kind_of(item)] += (run is not None) - (not goes_on)

    def _seconds(self, kind: Kind) -> float:
        return self._expected.seconds(kind) + self._beside_s

    @property
    def _beside_s(self) -> float:
        """What passes beside a video of a kind that its gang knows."""
        firsts = (first.beside_s for of_method in self._beside_first.values() for first in of_method)
        return fmean(self._beside) if self._beside else min(firsts, default=0.0)

    def _known_by(self) -> defaultdict[Kind, set[int | None]]:
        """The gangs that know a kind, or are about to."""
        known = defaultdict(set, {kind: set(gangs) for kind, gangs in self._met.items()})
        for run in self._running.values():
            known[run.kind].add(run.gang)
        return known

    def _more_s(self, kind: Kind) -> float:
        """What passes more where a gang meets a kind for the first time; of a method that is new, by its passes."""
        if own := self._beside_first.get(kind.method):
            return max(0.0, fmean(first.beside_s for first in own) - self._beside_s)
        every = [first for of_method in self._beside_first.values() for first in of_method]
        if not every:
            return 0.0
        more_s = fmean(first.beside_s for first in every) - self._beside_s
        return max(0.0, more_s / fmean(first.passes_counted for first in every) * self._expected.passes_counted(kind))
