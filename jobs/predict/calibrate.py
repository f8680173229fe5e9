"""A profile as finished videos have it: from one known time, or from the sidecars of a batch."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from pydantic import TypeAdapter, ValidationError

from caching.recipe.recipe import Recipe
from jobs.errors import BadInput
from jobs.predict.profile import Profile, Quantity
from jobs.predict.seconds import Parts, Setup, seconds_of
from jobs.predict.shape import ModelShape, video_of
from jobs.store.items import Seconds, Sidecar
from jobs.store.known import read_sidecar
from jobs.store.open import open_storage
from parallel.layout import Layout

RATES = ("linear_flops_per_s", "attention_flops_per_s")
WAITS = ("block_launch_s", "step_s")
ROUNDS = 4  # what waits depends on what does not
LIKE = 0.15  # in which the FLOPs of a sidecar have to be those of the model
TENTHS = 10
# As much as one video whose seconds are 10% off counts against what waits taking twice as long as taken to be.
HELD = 0.01


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A finished video, and what it took by stage."""

    setup: Setup
    encode_s: float
    denoise_s: float
    decode_s: float
    write_s: float

    @property
    def total(self) -> float:
        return self.encode_s + self.denoise_s + self.decode_s + self.write_s


def calibrated_by_total(profile: Profile, setup: Setup, total_s: float, source: str) -> Profile:
    """With attention and linear layers as much faster or slower as it takes for a video to take `total_s`."""
    parts = seconds_of(setup, profile)
    work = parts.linear + parts.attention
    rest = total_s - (parts.total - work)
    if rest <= 0:
        raise ValueError(f"{total_s:g} s are less than what the video takes beside its arithmetic")
    changed = {name: _known(profile.quantities[name].value * work / rest, source) for name in RATES}
    return profile.with_quantities(f"{profile.words}, calibrated", **changed)


def _known(value: float, source: str, part: float = 0.05) -> Quantity:
    return Quantity(value=value, low=value * (1 - part), high=value * (1 + part), source=source)


def calibrated(profile: Profile, shape: ModelShape, directory: str) -> Profile:
    """By the finished videos of an output directory. Raises BadInput if none of them is of this model."""
    return calibrated_by_videos(profile, read_seen(shape, directory), directory)


def read_seen(shape: ModelShape, directory: str) -> list[Seen]:
    """The videos that are of this model, by their FLOPs. Raises BadInput if there are none."""
    storage = open_storage(directory)
    with storage.trouble("videos"):
        stems = [name.removesuffix(".json") for name in storage.folder("videos") if name.endswith(".json")]
    sidecars = [found for stem in stems if (found := read_sidecar(storage, f"videos/{stem}"))]
    seen = [each for sidecar in sidecars if (each := _seen(shape, sidecar))]
    if not seen:
        raise BadInput(f"--calibrate {directory}: of its {len(sidecars)} finished videos none is of {shape.name}")
    return seen


def _seen(shape: ModelShape, sidecar: Sidecar) -> Seen | None:
    """None for a video of another model, or of a method that is not predicted."""
    size = {name: getattr(sidecar, name) for name in ("height", "width", "num_frames", "steps")}
    try:
        method = TypeAdapter(Recipe).validate_python(sidecar.method)
        video = video_of(shape, method, **size)
        layout = Layout(cfg=sidecar.layout.cfg, ulysses=sidecar.layout.ulysses, ring=sidecar.layout.ring)
        setup = Setup(shape=shape, video=video, layout=layout)
        setup.check()
    except (BadInput, ValidationError):
        return None
    expected = shape.numbers.step_flops(video.num_tokens) * video.steps * shape.num_passes
    if abs(sidecar.flops_full / expected - 1) > LIKE:
        return None
    return seen_of(setup, sidecar.seconds)


def seen_of(setup: Setup, seconds: Seconds) -> Seen:
    """A finished video by the seconds of its sidecar."""
    return Seen(
        setup=setup,
        encode_s=seconds.encode,
        denoise_s=seconds.denoise,
        decode_s=seconds.decode,
        write_s=seconds.write,
    )


def calibrated_by_videos(profile: Profile, seen: Sequence[Seen], directory: str, held: float = HELD) -> Profile:
    """Rates of arithmetic and fixed costs by least squares of relative errors, what stands around them by medians.

    `held` is less where videos were chosen to tell the two apart.
    """
    source = f"{len(seen)} finished videos in {directory}"
    at_first = profile.quantities[WAITS[0]].value
    for _ in range(ROUNDS):
        rows = [(seconds_of(each.setup, profile), each.denoise_s) for each in seen]
        work, waits = _factors(rows, profile.quantities[WAITS[0]].value / at_first, held)
        changed = {name: _known(profile.quantities[name].value / work, source) for name in RATES}
        changed |= {name: _known(profile.quantities[name].value * waits, source) for name in WAITS}
        profile = profile.with_quantities(profile.words, **changed)
    profile = _around(profile, seen, source)
    profile = _with_spread(profile, seen)
    return replace(profile, words=f"{profile.words}, calibrated by {source}")


def _factors(rows: Sequence[tuple[Parts, float]], so_far: float, held: float) -> tuple[float, float]:
    """How much longer arithmetic, and what waits, take than was taken to be: least squares of relative errors.

    What waits is held to what it was taken to be at first, of which it is `so_far` times as much by now, as far as
    videos are too alike to tell the two apart.
    """
    columns = [
        ((parts.linear + parts.attention) / seconds, parts.fixed / seconds, 1 - parts.exchange / seconds)
        for parts, seconds in rows
    ]
    ww, wf, ff, wt, ft = (sum(row[a] * row[b] for row in columns) for a, b in ((0, 0), (0, 1), (1, 1), (0, 2), (1, 2)))
    ff, ft = ff + held * so_far**2, ft + held * so_far
    determinant = ww * ff - wf * wf
    work, waits = (wt * ff - ft * wf) / determinant, (ft * ww - wt * wf) / determinant
    if work > 0 and waits > 0:
        return work, waits
    both = statistics.median(seconds / parts.loop for parts, seconds in rows)
    return both, both


def _around(profile: Profile, seen: Sequence[Seen], source: str) -> Profile:
    """With what encoding, decoding and publishing took."""

    def median(value: Callable[[Seen], float]) -> float:
        return statistics.median(map(value, seen))

    slower = median(lambda each: each.decode_s / seconds_of(each.setup, profile).decode)
    decode = profile.quantities["decode_flops_per_s"].value / slower
    return profile.with_quantities(
        profile.words,
        encode_s=_known(median(lambda each: each.encode_s), source),
        decode_flops_per_s=_known(decode, source),
        tail_pixel_s=_known(0.0, source),
        publish_s=_known(median(lambda each: each.write_s), source),
    )


def _with_spread(profile: Profile, seen: Sequence[Seen]) -> Profile:
    """With rates of arithmetic as uncertain as leaves most of the videos between."""
    ratios = sorted(each.total / seconds_of(each.setup, profile).total for each in seen)
    least, most = ratios[len(ratios) // TENTHS], ratios[-1 - len(ratios) // TENTHS]
    changed = {}
    for name in RATES:
        known = profile.quantities[name]
        low, high = min(known.low, known.value / most), max(known.high, known.value / least)
        changed[name] = replace(known, low=low, high=high)
    return profile.with_quantities(profile.words, **changed)
