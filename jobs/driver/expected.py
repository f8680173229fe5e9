"""What videos take, kind by kind: what finished ones of a kind took, or else what is predicted by all that finished."""

from collections import Counter, defaultdict, deque
from dataclasses import dataclass, replace
from statistics import median
from typing import NamedTuple

from jobs.console import count
from jobs.driver.batch_plan import Plan
from jobs.driver.loops import Loops, loops_of
from jobs.predict.calibrate import Seen, calibrated_by_videos, seen_of
from jobs.predict.gpus import profile
from jobs.predict.profile import Profile
from jobs.predict.seconds import Setup, seconds_of
from jobs.predict.shape import shape_of_facts, video_of
from jobs.request.passes import count_passes
from jobs.store.items import RenderItem, Seconds
from parallel.layout import Layout

LATEST = 32  # finished videos that a prediction goes by
OF_A_KIND = 8  # that one of their kind goes by: few, as machines change
GROWTH = 1.1  # so many times more of them are finished before it is made anew


class Kind(NamedTuple):
    """What decides how long a video takes."""

    height: int
    width: int
    num_frames: int
    steps: int
    method: str | None
    num_passes: int


class Expected:
    """Seconds of a batch's videos on gangs of some layout.

    Args:
        profile: what is taken to be known of the machine until videos tell.
    """

    def __init__(self, loops: Loops, layout: Layout, profile: Profile) -> None:
        self._loops, self._layout, self._profile = loops, layout, profile
        self._setups: dict[Kind, Setup] = {}
        self._took: defaultdict[Kind, deque[float]] = defaultdict(lambda: deque(maxlen=OF_A_KIND))
        self._seen: deque[Seen] = deque(maxlen=LATEST)
        self._known, self._predicted = profile, dict[Kind, float]()
        self.num_finished = self._num_known = 0  # and of those that predictions go by
        self.devices: set[str] = set()
        """Those on which videos had been rendered before."""

    def kind_of(self, item: RenderItem) -> Kind:
        """The kind of a video."""
        num_passes = self._loops.num_passes(item)
        kind = Kind(item.height, item.width, item.num_frames, item.steps, item.method, num_passes)
        if kind not in self._setups:
            shape = shape_of_facts(self._loops.facts, num_passes)
            size = {name: getattr(item, name) for name in ("height", "width", "num_frames", "steps")}
            video = video_of(shape, self._loops.method_of(item), **size)
            self._setups[kind] = Setup(shape=shape, video=video, layout=self._layout)
        return kind

    def note(self, kind: Kind, seconds: Seconds, num_ranks: int | None = None) -> None:
        """A video has finished, on gangs of this layout or of `num_ranks`."""
        setup = self._setups[kind]
        if num_ranks in (None, self._layout.world_size):
            self._took[kind].append(seconds.total)
        else:
            setup = replace(setup, layout=Layout(ulysses=num_ranks))
        self._seen.append(seen_of(setup, seconds))
        self.num_finished += 1

    def seconds(self, kind: Kind) -> float:
        """Of a video, once one has finished.

        One of another kind is as much slower than predicted as those of its method were, or those of all methods.
        """
        if own := self._took.get(kind):
            return median(own)
        alike = {other: took for other, took in self._took.items() if other.method == kind.method} or self._took
        slower = sum(map(median, alike.values())) / sum(map(self._predict, alike)) if alike else 1.0
        return self._predict(kind) * slower

    def passes_counted(self, kind: Kind) -> float:
        """Passes through blocks in a dense step and the sparse ones behind it, of which a gang counts the FLOPs."""
        video = self._setups[kind].video
        passes = count_passes(video.method, video.steps)
        return 1 + passes.some_tokens / passes.dense

    def _predict(self, kind: Kind) -> float:
        if self.num_finished >= GROWTH * self._num_known:
            self._known = calibrated_by_videos(self._profile, self._seen, "this batch")
            self._num_known = self.num_finished
            self._predicted.clear()
        if kind not in self._predicted:
            self._predicted[kind] = seconds_of(self._setups[kind], self._known).total
        return self._predicted[kind]


def expected_of(plan: Plan, layout: Layout, *, on_gpus: bool) -> Expected:
    """What the finished videos of a plan let expect."""
    expected = Expected(loops_of(plan), layout, profile("h100" if on_gpus else "cpu", "pcie", "ib400"))
    finished = plan.known.finished
    for item in plan.items:  # rendered by their methods, if they are finished, as their fingerprints are the same
        if done := finished.get(item.id):
            expected.note(expected.kind_of(item), Seconds(**done.seconds), done.world_size)
            expected.devices.add(done.device)
    return expected


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What is left of a batch: seconds of all gangs together, and until the last one ends; and what says so."""

    gang_s: float
    wall_s: float
    basis: str


def estimate(plan: Plan, expected: Expected, *, gangs: int) -> Estimate | None:
    """For items that are handed out to equal gangs, the longest first; None where nothing has finished."""
    if not expected.num_finished:
        return None
    each = [(expected.seconds(kind), number) for kind, number in Counter(map(expected.kind_of, plan.todo)).items()]
    gang_s = sum(seconds * number for seconds, number in each)
    longest_s = max((seconds for seconds, _ in each), default=0.0)
    devices = ", ".join(sorted(expected.devices))
    basis = f"from {count(expected.num_finished, 'video')} finished here, on {devices}"
    return Estimate(gang_s=gang_s, wall_s=max(gang_s / gangs, longest_s), basis=basis)
