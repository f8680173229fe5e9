"""What runs on the ranks: renderings of which it is known what the encoder took, and probes between them."""

import fcntl
import os
import resource
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

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

            return probe(item)
        before = _of_children()
        sidecar = self._session.run(item, attempt)
        return sidecar and sidecar | {ENCODER: _of_children() - before}

    def close(self) -> None:
        self._session.close()


def take_core() -> IO[str] | None:
    """Keep all threads of this process to a core that no other rank of this machine has taken, if there is one left.

    Returns what holds the claim, which ends with the process.
    """
    for core in sorted(os.sched_getaffinity(0)):
        claim = (Path(tempfile.gettempdir()) / f"resca-core-{core}").open("w")
        try:
            fcntl.flock(claim, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            claim.close()
            continue
        for thread in Path("/proc/self/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})
        return claim
    return None


def _of_children() -> float:
    """Seconds of cores that processes took which this one has started, and which have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
