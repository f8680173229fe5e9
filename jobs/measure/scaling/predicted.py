"""What the model predicts of each case, calibrated by the first one, and by probes of its own ranks and links."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from jobs.driver.batch_plan import Plan
from jobs.measure.scaling.times import Case, Times, Video
from jobs.predict.calibrate import Seen
from jobs.predict.gpus import profile
from jobs.predict.measured import Probe, combined, measured, probed
from jobs.predict.profile import Profile
from jobs.predict.seconds import Parts, Setup, interval_of, seconds_of
from jobs.predict.shape import shape_of_facts, video_of
from jobs.store.items import RenderItem
from parallel.layout import Layout

LEAST_PART = 0.01  # of decoding, whatever the encoder beside it took


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """Seconds of a video, how few and how many they may be, and what they are spent on, of the first one."""

    seconds: float
    low: float
    high: float
    parts: Parts


def setup_of(plan: Plan, item: RenderItem, layout: Layout) -> Setup:
    """What decides the seconds of an item."""
    shape = shape_of_facts(plan.facts, plan.num_passes(item), plan.settings.dtype)
    size = {name: getattr(item, name) for name in ("height", "width", "num_frames", "steps")}
    return Setup(shape=shape, video=video_of(shape, plan.method_of(item), **size), layout=layout)


def predict(plan: Plan, times: Sequence[Times], *, on_gpus: bool) -> dict[Case, Predicted]:
    """Of every case but the first. Raises BadInput for a method whose sparse steps are not predicted."""
    first = times[0]
    for item in plan.items:
        setup_of(plan, item, first.case.layout).check()
    probes = {each.case: combined(each.probes) for each in times if each.probes}
    base = profile("h100" if on_gpus else "cpu", "pcie", "tcp100")
    words, own = f"{first.case.name} of this run", probes[first.case]
    known = measured(base, _seen(plan, first, on_gpus=on_gpus), own, words)
    return {
        each.case: _predict(
            plan, each.case, known, probes.get(each.case, own), _together(each.case, probes) / own.together
        )
        for each in times[1:]
    }


def _predict(plan: Plan, case: Case, known: Profile, probe: Probe, slower: float) -> Predicted:
    here = probed(known, probe, case.layout, slower)
    setups = [setup_of(plan, item, case.layout) for item in plan.items]
    intervals = [interval_of(setup, here) for setup in setups]
    return Predicted(
        seconds=statistics.median(seconds_of(setup, here).total for setup in setups),
        low=statistics.median(low for low, _ in intervals),
        high=statistics.median(high for _, high in intervals),
        parts=seconds_of(setups[0], here),
    )


def _together(case: Case, probes: dict[Case, Probe]) -> float:
    """How much longer arithmetic takes with so many ranks at work, by the probe of the case that has as many."""
    nearest = min(probes, key=lambda other: (abs(other.ranks - case.ranks), other != case))
    return probes[nearest].together


def _seen(plan: Plan, times: Times, *, on_gpus: bool) -> list[Seen]:
    """The videos of a case, each with what the driver sees beside its stages."""
    beside = statistics.median(video.seconds - sum(video.stages.values()) for video in times.videos)
    return [_see(plan, video, times.case.layout, beside, on_gpus) for video in (*times.videos, *times.small)]


def _see(plan: Plan, video: Video, layout: Layout, beside: float, on_gpus: bool) -> Seen:
    """On a CPU the encoder of rank 0 runs on its core, and takes of its time, while it decodes."""
    stages, decode_s, write_s = video.stages, video.stages["decode"], video.stages["write"]
    if not on_gpus:
        decode_s = max(LEAST_PART * decode_s, decode_s + write_s - video.encoder)
        write_s = video.encoder
    return Seen(
        setup=setup_of(plan, video.item, layout),
        encode_s=stages["encode"],
        denoise_s=stages["denoise"],
        decode_s=decode_s,
        write_s=write_s + beside,
    )
