"""What is measured: layouts and numbers of gangs, and of each the seconds of its videos."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cluster.events import Event, ItemDone, ItemFailed, ItemRunning
from jobs.errors import InfrastructureError
from jobs.measure.scaling.session import ENCODER, Asked, Found
from jobs.predict.measured import Probe
from jobs.store.items import RenderItem
from parallel.layout import Layout

STAGES = ("encode", "denoise", "decode", "write")


@dataclass(frozen=True, kw_only=True)
class Case:
    """So many gangs of a layout that render at the same time."""

    layout: Layout
    gangs: int = 1

    @property
    def name(self) -> str:
        """The layout as `--layouts` has it, and how many gangs, if several."""
        name = layout_name(self.layout)
        return name if self.gangs == 1 else f"{self.gangs} gangs of {name}"

    @property
    def ranks(self) -> int:
        return self.gangs * self.layout.world_size


def layout_name(layout: Layout) -> str:
    """As `--layouts` has it."""
    cfg, of_a_pass = f"cfg{layout.cfg}", f"{layout.ulysses}x{layout.ring}"
    if layout.cfg == 1:
        return of_a_pass
    return cfg if layout.sequence_size == 1 else f"{cfg}x{of_a_pass}"


@dataclass(frozen=True, kw_only=True)
class Video:
    """A finished one: its seconds as the driver sees them, those of its stages, and those of cores of its encoder."""

    item: RenderItem
    seconds: float
    stages: dict[str, float]
    encoder: float


@dataclass(frozen=True, kw_only=True)
class Times:
    """What was measured of a case: videos, smaller ones that only tell what a rate is, and probes."""

    case: Case
    videos: list[Video] = field(default_factory=list)
    small: list[Video] = field(default_factory=list)
    probes: list[Probe] = field(default_factory=list)

    @property
    def seconds(self) -> list[float]:
        """Of each video."""
        return [video.seconds for video in self.videos]

    @property
    def median_s(self) -> float:
        """Of a video."""
        return statistics.median(self.seconds)

    @property
    def videos_per_hour(self) -> float:
        """Of all gangs."""
        return 3600 * self.case.gangs / self.median_s

    def stage_s(self, stage: str) -> float:
        """The median of a stage."""
        return statistics.median(video.stages[stage] for video in self.videos)


class Listener:
    """Takes note of a turn's events. Videos go `into` a list; the first ones, which pay for first times, nowhere."""

    def __init__(self, name: str, clock: Callable[[], float] = time.perf_counter) -> None:
        self.into: list[Video] | None = None
        self.probes: list[Probe] = []
        self.gangs: set[int] = set()
        """Those that have rendered."""
        self._name, self._clock = name, clock
        self._started: dict[int, float] = {}

    def __call__(self, event: Event[Asked, Found]) -> None:
        """Raises InfrastructureError for an item that has failed."""
        match event:
            case ItemRunning(kind="item_started"):
                self._started[event.index] = self._clock()
            case ItemFailed(kind="item_failed"):
                raise InfrastructureError(f"{self._name}: {event.error}")
            case ItemDone():
                self._done(event)

    def _done(self, event: ItemDone[Asked, Found]) -> None:
        if isinstance(event.result, Probe):
            self.probes.append(event.result)
            return
        assert isinstance(event.result, dict) and isinstance(event.item, RenderItem) and event.gang is not None
        self.gangs.add(event.gang)
        if self.into is not None:
            stages, encoder = event.result["seconds"], event.result[ENCODER]
            assert isinstance(stages, dict) and isinstance(encoder, float)
            seconds = self._clock() - self._started[event.index]
            self.into.append(Video(item=event.item, seconds=seconds, stages=stages, encoder=encoder))
