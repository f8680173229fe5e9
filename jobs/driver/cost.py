"""What a video will take, from what earlier ones took: a cost model fitted to the sidecars of the same directory."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from caching.recipe.recipe import Recipe
from jobs.driver.batch_plan import Plan
from jobs.models.facts import ModelFacts
from jobs.request.proxy_passes import count_proxy_passes, seconds_of_a_proxy_pass
from jobs.store.items import RenderItem
from jobs.store.known import Done

LONG_S = 3600.0  # what takes longer is asked for


@dataclass(frozen=True, kw_only=True)
class Loops:
    """The denoising loops of a batch: what decides how much work each is.

    `num_passes` are those of each step of an item: 2 where a second one guides.
    """

    facts: ModelFacts
    method_of: Callable[[RenderItem], Recipe]
    num_passes: Callable[[RenderItem], int]

    def work(self, item: RenderItem) -> float:
        """About the FLOPs of the dense steps of an item's loop."""
        num_tokens = self.facts.num_tokens(item.height, item.width, item.num_frames)
        num_dense, _ = count_proxy_passes(self.method_of(item), item.steps)
        return num_dense * self.num_passes(item) * self.facts.step_flops(num_tokens)

    def proxy_passes(self, item: RenderItem) -> int:
        """How often an item's proxies are computed."""
        _, num_proxied = count_proxy_passes(self.method_of(item), item.steps)
        return self.num_passes(item) * num_proxied


def loops_of(plan: Plan) -> Loops:
    """Those of a batch's items."""
    return Loops(facts=plan.facts, method_of=plan.method_of, num_passes=plan.num_passes)


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """Seconds of one rank for a unit of work and for a pixel of a frame, and what each video costs besides.

    `work_s` are by the method that items name as their own, `any_work_s` those of one of which no video is finished.
    `proxy_pass_s` are the seconds of a pass of proxies, of which ranks take off nothing.
    """

    loops: Loops
    proxy_pass_s: float
    work_s: Mapping[str | None, float]
    any_work_s: float
    pixel_s: float
    other_s: float
    num_videos: int
    devices: tuple[str, ...]

    def seconds(self, item: RenderItem, num_ranks: int) -> float:
        """A video's time on a gang, as if more ranks were proportionally faster."""
        proxies_s = self.proxy_pass_s * self.loops.proxy_passes(item)
        work_s = self.work_s.get(item.method, self.any_work_s)
        shared_s = work_s * self.loops.work(item) + self.pixel_s * pixels(item)
        return self.other_s + proxies_s + shared_s / num_ranks


def pixels(item: RenderItem) -> int:
    """Of all frames."""
    return item.height * item.width * item.num_frames


def calibrate(
    loops: Loops, items: Iterable[RenderItem], finished: dict[str, Done], *, on_gpus: bool
) -> CostModel | None:
    """The model by the finished ones of the items; None if there are none. Medians, so that a slow one does not count.

    They were rendered by the methods of the items, as their fingerprints are the same.
    """
    pairs = [(item, finished[item.id]) for item in items if item.id in finished]
    if not pairs:
        return None

    proxy_pass_s = _proxy_pass_s(loops, pairs) if on_gpus else 0.0

    def median(value: Callable[[RenderItem, Done], float]) -> float:
        return statistics.median(value(item, done) for item, done in pairs)

    def work_s(item: RenderItem, done: Done) -> float:
        shared_s = done.seconds["denoise"] - proxy_pass_s * loops.proxy_passes(item)
        return shared_s * done.world_size / loops.work(item)

    by_method: defaultdict[str | None, list[float]] = defaultdict(list)
    for item, done in pairs:
        by_method[item.method].append(work_s(item, done))
    return CostModel(
        loops=loops,
        proxy_pass_s=proxy_pass_s,
        work_s={name: statistics.median(each) for name, each in by_method.items()},
        any_work_s=median(work_s),
        pixel_s=median(
            lambda item, done: (done.seconds["decode"] + done.seconds["write"]) * done.world_size / pixels(item)
        ),
        other_s=median(lambda item, done: done.seconds["encode"]),
        num_videos=len(pairs),
        devices=tuple(sorted({done.device for _, done in pairs})),
    )


def _proxy_pass_s(loops: Loops, pairs: list[tuple[RenderItem, Done]]) -> float:
    """What a pass of proxies is expected to take, but at most half of the loops that were seen."""
    counted = [(loops.proxy_passes(item), done.seconds["denoise"]) for item, done in pairs]
    expected = seconds_of_a_proxy_pass(loops.facts)
    return min([expected, *(seconds / 2 / passes for passes, seconds in counted if passes)])


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What is left of a batch: seconds of all gangs together, and until the last one ends."""

    gang_s: float
    wall_s: float
    gpu_hours: float
    basis: str


def estimate(items: list[RenderItem], model: CostModel, *, num_ranks: int, num_gangs: int) -> Estimate:
    """For items that are handed out to equal gangs, the longest first."""
    each = [model.seconds(item, num_ranks) for item in items]
    gang_s = sum(each)
    videos = "1 video" if model.num_videos == 1 else f"{model.num_videos} videos"
    return Estimate(
        gang_s=gang_s,
        wall_s=max(gang_s / num_gangs, max(each, default=0.0)),
        gpu_hours=gang_s * num_ranks / 3600,
        basis=f"from {videos} finished here, on {', '.join(model.devices)}",
    )
