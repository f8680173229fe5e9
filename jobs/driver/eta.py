"""How long a running batch will still take: as predicted by what has finished, kind of video by kind of video."""

import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import fmean, median
from typing import NamedTuple

from cluster.events import BatchStopping, Event, GangEvent, ItemDone, ItemRunning
from jobs.driver.cost import Loops
from jobs.predict.calibrate import Seen, calibrated_by_videos, seen_of
from jobs.predict.profile import Profile
from jobs.predict.seconds import Setup, seconds_of
from jobs.predict.shape import shape_of_facts, video_of
from jobs.store.items import RenderItem, Sidecar
from parallel.layout import Layout

LATEST = 32  # finished videos that a prediction goes by
GROWTH = 1.1  # so many times more of them are finished before it is made anew


class Kind(NamedTuple):
    """What decides how long a video takes."""

    height: int
    width: int
    num_frames: int
    steps: int
    method: str | None
    num_passes: int


@dataclass(kw_only=True)
class Running:
    """A video under way: of which kind, on which gang, since when, and how far it is."""

    kind: Kind
    gang: int | None
    since_s: float
    fraction: float = 0.0


class Eta:
    """Takes note of a batch's events; `clock` is that by which they come."""

    def __init__(
        self,
        items: Iterable[RenderItem],
        loops: Loops,
        layout: Layout,
        profile: Profile,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._loops, self._layout, self._profile, self._clock = loops, layout, profile, clock
        self._setups: dict[Kind, Setup] = {}
        self._waiting = Counter(map(self._kind_of, items))
        self._running: dict[str, Running] = {}
        # What videos of a kind took, and what passed beside that between two events: more, where a gang meets a kind
        # for the first time and counts its FLOPs.
        self._took: defaultdict[Kind, deque[float]] = defaultdict(lambda: deque(maxlen=LATEST))
        self._beside: deque[float] = deque(maxlen=LATEST)
        self._beside_first: defaultdict[str | None, deque[float]] = defaultdict(lambda: deque(maxlen=LATEST))
        self._met: defaultdict[Kind, set[int | None]] = defaultdict(set)  # the gangs that know a kind
        self._seen: deque[Seen] = deque(maxlen=LATEST)
        self._gangs: set[int] = set()
        self._expected: dict[Kind, float] = {}
        self._num_finished = self._num_known = 0  # and of those that the expectation goes by

    def note(self, event: Event) -> None:
        """Follows what runs, what waits and what has finished."""
        match event:
            case ItemRunning(kind="item_started"):
                kind = self._kind_of(event.item)
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

    @property
    def left_s(self) -> float | None:
        """Until the last video ends; None before the first one has."""
        if not self._seen:
            return None
        each = [self._seconds(run.kind) * (1 - run.fraction) for run in self._running.values()]
        waiting = [(self._seconds(kind), number) for kind, number in self._waiting.items() if number > 0]
        total = sum(each) + sum(seconds * number for seconds, number in waiting) + self._first_s
        longest = max([*each, *(seconds for seconds, _ in waiting)], default=0.0)
        return max(total / max(1, len(self._gangs)), longest)

    def _finish(self, event: ItemDone) -> None:
        run, seconds = self._running.pop(event.item.id, None), Sidecar.model_validate(event.result).seconds
        if run is None or not seconds.denoise:
            return
        self._num_finished += 1
        self._took[run.kind].append(seconds.total)
        is_first = event.gang not in self._met[run.kind]
        self._met[run.kind].add(event.gang)
        beside = self._beside_first[run.kind.method] if is_first else self._beside
        beside.append(self._clock() - run.since_s - seconds.total)
        self._seen.append(seen_of(self._setups[run.kind], seconds))

    def _fail(self, item: RenderItem, *, goes_on: bool) -> None:
        run = self._running.pop(item.id, None)
        self._waiting[self._kind_of(item)] += (run is not None) - (not goes_on)

    def _seconds(self, kind: Kind) -> float:
        """What videos of its kind took, or else what is predicted, as much slower as those were than predicted."""
        beside = self._beside_s
        if own := self._took.get(kind):
            return median(own) + beside
        if self._num_finished >= GROWTH * self._num_known:
            profile = calibrated_by_videos(self._profile, self._seen, "this batch")
            self._expected = {each: seconds_of(setup, profile).total for each, setup in self._setups.items()}
            self._num_known = self._num_finished
        slower = sum(map(median, self._took.values())) / sum(self._expected[each] for each in self._took)
        return self._expected[kind] * slower + beside

    @property
    def _beside_s(self) -> float:
        """What passes beside a video of a kind that its gang knows."""
        firsts = (seconds for of_method in self._beside_first.values() for seconds in of_method)
        return fmean(self._beside) if self._beside else min(firsts)

    @property
    def _first_s(self) -> float:
        """What passes more, in all, where a gang meets a kind for the first time."""
        times = Counter(run.kind.method for run in self._running.values() if run.gang not in self._met[run.kind])
        for kind, number in self._waiting.items():
            times[kind.method] += min(number, max(0, len(self._gangs) - len(self._met[kind])))
        every = [seconds for of_method in self._beside_first.values() for seconds in of_method]
        known = {method: fmean(seconds) for method, seconds in self._beside_first.items()}
        more = {method: max(0.0, known.get(method, fmean(every)) - self._beside_s) for method in times}
        return sum(more[method] * number for method, number in times.items())

    def _kind_of(self, item: RenderItem) -> Kind:
        num_passes = self._loops.num_passes(item)
        kind = Kind(item.height, item.width, item.num_frames, item.steps, item.method, num_passes)
        if kind not in self._setups:
            shape = shape_of_facts(self._loops.facts, num_passes)
            size = {name: getattr(item, name) for name in ("height", "width", "num_frames", "steps")}
            video = video_of(shape, self._loops.method_of(item), **size)
            self._setups[kind] = Setup(shape=shape, video=video, layout=self._layout)
        return kind
