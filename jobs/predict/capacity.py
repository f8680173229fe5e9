"""So many GPUs: the split into gangs and layouts that renders the most videos, and the one that renders one soonest."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from cluster.placement import GangSpec, room
from jobs.predict.counted import WEIGHTS
from jobs.predict.memory import GIB, Keeping, keepings, need_bytes
from jobs.predict.profile import Profile
from jobs.predict.seconds import Parts, Setup, alone, interval_of, seconds_of
from jobs.predict.shape import ModelShape, Video
from jobs.request.gangs import most_ranks
from parallel.layout import Layout, divisors

Aim = Literal["throughput", "latency"]
AIMS: tuple[Aim, ...] = ("throughput", "latency")
RINGS = tuple(sorted({base * 2**power for base in (1, 3) for power in range(10)}))


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A gang of one layout, the cheapest way to keep weights with which a video fits, and what it takes there."""

    setup: Setup
    keeping: Keeping
    need_bytes: float | None
    parts: Parts


@dataclass(frozen=True, kw_only=True)
class Split(Candidate):
    """GPUs as equal gangs."""

    gangs: int

    @property
    def videos_per_hour(self) -> float:
        return 3600 * self.gangs / self.parts.total

    @property
    def ranks(self) -> int:
        return self.setup.layout.world_size

    def options(self, gangs: int) -> str:
        """As `render` takes them."""
        layout = self.setup.layout
        degrees = {"cfg": layout.cfg, "ulysses": layout.ulysses, "ring": layout.ring, "gangs": gangs}
        words = [f"--{name} {degree}" for name, degree in degrees.items() if degree > 1]
        return " ".join([*words, self.keeping.words]).strip()


def nodes_of(num_gpus: int, per_node: int) -> list[dict[str, float]]:
    """So many GPUs in nodes, the last of which may have fewer."""
    full, rest = divmod(num_gpus, per_node)
    return [{"GPU": float(per_node)}] * full + ([{"GPU": float(rest)}] if rest else [])


def spec_of(layout: Layout) -> GangSpec:
    """A GPU a rank; a Ulysses group shares a node."""
    return GangSpec(world_size=layout.world_size, together=layout.ulysses, num_gpus_per_rank=1, num_cpus_per_rank=0)


def num_gangs(layout: Layout, num_gpus: int, per_node: int) -> int:
    """How many gangs fit; one that a node has room for stays on it."""
    spec = spec_of(layout)
    if layout.world_size > per_node:
        return room(spec, nodes_of(num_gpus, per_node))
    full, rest = divmod(num_gpus, per_node)
    return full * room(spec, nodes_of(per_node, per_node)) + room(spec, nodes_of(rest, per_node))


def layouts(shape: ModelShape, video: Video, num_gpus: int, per_node: int) -> Iterator[Layout]:
    """Those that model, method and nodes allow, and whose ranks have enough tokens."""
    most = most_ranks(video.num_tokens, video.method)
    for cfg in sorted({1, shape.num_passes}):
        for ulysses in divisors(shape.numbers.heads):
            for ring in RINGS if ulysses <= per_node else ():
                layout = Layout(cfg=cfg, ulysses=ulysses, ring=ring)
                if layout.world_size <= num_gpus and layout.sequence_size <= most:
                    yield layout


def candidates(shape: ModelShape, video: Video, profile: Profile, most_gpus: int) -> Iterator[Candidate]:
    """All that fit into the GPUs' memory, on at most so many of them."""
    for layout in layouts(shape, video, most_gpus, profile.ranks_per_node):
        if kept := keeping_that_fits(shape.name, video, layout, profile.memory_bytes):
            keeping, need = kept
            gathered = max(WEIGHTS[shape.name].transformers) if keeping.shard_weights else 0
            setup = Setup(shape=shape, video=video, layout=layout, weight_bytes=gathered)
            yield Candidate(setup=setup, keeping=keeping, need_bytes=need, parts=seconds_of(setup, profile))


def splits(of: Iterable[Candidate], num_gpus: int, per_node: int) -> list[Split]:
    """As many gangs of each candidate as so many GPUs have room for."""
    counted = ((each, num_gangs(each.setup.layout, num_gpus, per_node)) for each in of)
    return [Split(**vars(each), gangs=gangs) for each, gangs in counted if gangs]


def keeping_that_fits(
    model: str, video: Video, layout: Layout, memory_bytes: float
) -> tuple[Keeping, float | None] | None:
    """The cheapest, and what it needs; None where none fits."""
    for keeping in keepings(layout):
        need = need_bytes(model, video, layout, keeping)
        if need is None or need <= memory_bytes:
            return keeping, need
    return None


WORTH: dict[Aim, Callable[[Split], float]] = {
    "throughput": lambda split: split.videos_per_hour,
    "latency": lambda split: -split.parts.total,
}


def best(possible: list[Split], aim: Aim) -> Split:
    """The best for an aim; of those that are as good, to a thousandth, the one with the fewest ranks a video."""
    most = max(map(WORTH[aim], possible))
    as_good = [split for split in possible if WORTH[aim](split) >= most - abs(most) / 1000]
    return min(as_good, key=lambda split: (split.ranks, -WORTH[aim](split)))


def row_of(split: Split, profile: Profile, num_gpus: int, aim: Aim, price: float | None) -> dict[str, object]:
    """A split as a row of a table: for throughput of all GPUs, also those left over; for latency of one gang."""
    gangs, gpus = (split.gangs, num_gpus) if aim == "throughput" else (1, split.ranks)
    seconds = split.parts.total
    gpu_s = gpus * seconds / gangs
    low, high = interval_of(split.setup, profile)
    return {
        "method": split.setup.video.method.name,
        "gpus": num_gpus,
        "for": aim,
        "gangs": gangs,
        "ranks": split.ranks,
        "seconds": round(seconds, 1),
        "from": round(low, 1),
        "to": round(high, 1),
        "videos/h": round(3600 * gangs / seconds, 1),
        "GPU h/video": round(gpu_s / 3600, 4),
        "cost/video": None if price is None else round(gpu_s / 3600 * price, 3),
        "GiB": None if split.need_bytes is None else round(split.need_bytes / GIB, 1),
        "efficiency": round(seconds_of(alone(split.setup), profile).total / gpu_s, 3),
        "limit": split.parts.limit,
        "options": split.options(gangs),
        "parts": {name: round(value, 3) for name, value in vars(split.parts).items()},
    }
