"""What a method is worth on prompts that nothing was fitted to."""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from math import sqrt

from caching.recipe.recipe import RECIPES, Recipe
from caching.recipe.schedule import Places
from jobs.measure.sampling.judge import Judge
from jobs.measure.tune.places import Steps
from jobs.request.tuned import Promise


class HeldOut:
    """The held-out prompts; each method is measured once."""

    def __init__(self, judge: Judge) -> None:
        self.judge = judge
        self.known: dict[Recipe, list[float]] = {}

    def video_db(self, method: Recipe) -> list[float]:
        """PSNR of each prompt's video."""
        if method not in self.known:
            self.known[method] = self.judge.video_db(method)
        return self.known[method]

    def promise(self, method: Recipe) -> Promise:
        """What can be expected of other prompts."""
        return promise_of(self.video_db(method))

    def is_worse(self, method: Recipe, other: Recipe) -> bool:
        """Whether a method is below another, on average or on the worst prompt."""
        mine, others = self.video_db(method), self.video_db(other)
        return min(mine) < min(others) or statistics.mean(mine) < statistics.mean(others)


def promise_of(values: Sequence[float]) -> Promise:
    """Of the fidelity of some prompts; two at least."""
    return Promise(
        prompts=len(values),
        mean_db=round(statistics.mean(values), 2),
        give_or_take_db=round(2 * statistics.stdev(values) / sqrt(len(values)), 2),
        tenth_db=round(statistics.quantiles(values, n=10, method="inclusive")[0], 2),
        worst_db=round(min(values), 2),
    )


def auto_at(places: Steps, steps: int) -> Recipe:
    """The method `auto`, untuned, with these dense steps."""
    return replace(RECIPES["auto"], name=f"auto-{len(places)}", schedule=Places(dense=places, steps=steps))
