"""What runs on the ranks: renderings of which it is known what the encoder took, and probes between them."""

import resource
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from cluster.cpus import take_core
from cluster.ranks import RankContext
from jobs.predict.measured import Probe, ProbeRequest
from jobs.rank.workload import RenderWorkload
from jobs.store.items import RenderItem

if TYPE_CHECKING:
    from jobs.rank.session import RenderSession

Asked = RenderItem | ProbeRequest
Found = dict[str, object] | Probe | None
ENCODER = "encoder"  # the seconds of cores that ffmpeg took for a video, beside a sidecar's


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A workload whose CPU ranks each keep to a core of their own, and that is asked for probes, too."""

    workload: RenderWorkload

    def prepare(self, context: RankContext) -> None:
        self.workload.prepare(context)

    def __call__(self, context: RankContext) -> "MeasuredSession":
        core = take_core() if context.device == "cpu" else None
        return MeasuredSession(self.workload(context), core)


class MeasuredSession:
    """A rendering session, which also probes. `core` holds the claim to one for as long as the session lives."""

    def __init__(self, session: "RenderSession", core: IO[str] | None) -> None:
        self._session, self._core = session, core

    @property
    def progress(self) -> float:
        return self._session.progress

    @property
    def beats(self) -> int:
        return self._session.beats

    @property
    def num_ended(self) -> int:
        return self._session.num_ended

    @property
    def overdue(self) -> str | None:
        return self._session.overdue

    def run(self, item: Asked, attempt: int) -> Found:
        """A sidecar, with the encoder's seconds, or what a probe has found."""
        if isinstance(item, ProbeRequest):
            from jobs.measure.scaling.probe import probe  # with torch, which the driver does without

            return probe(item, self._session.group)
        before = _of_children()
        sidecar = self._session.run(item, attempt)
        return sidecar and sidecar | {ENCODER: _of_children() - before}

    def close(self) -> None:
        self._session.close()


def _of_children() -> float:
    """Seconds of cores that processes took which this one has started, and which have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
