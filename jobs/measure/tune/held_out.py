"""What a method is worth on prompts that nothing was fitted to."""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from math import comb, sqrt

from caching.recipe.recipe import RECIPES, Recipe
from caching.recipe.schedule import Places
from jobs.measure.sampling.judge import Judge
from jobs.measure.tune.places import Steps
from jobs.request.tuned import Promise

CONFIDENCE = 0.8


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
        tenth_db=round(bound_of_tenth(values), 2),
        worst_db=round(min(values), 2),
    )


def bound_of_tenth(values: Sequence[float]) -> float:
    """A value that one prompt in ten is below, or fewer, with a confidence of 80%; of few values the lowest.

    The k-th lowest of n values is one if it is as likely as that that k or more are below the true tenth (Wilks, 1941).
    """
    ordered, number = sorted(values), len(values)
    below = 0.0  # the probability that fewer than k are
    for k in range(1, number + 1):
        below += comb(number, k - 1) * 0.1 ** (k - 1) * 0.9 ** (number - k + 1)
        if 1 - below < CONFIDENCE:
            return ordered[max(0, k - 2)]
    return ordered[-1]


def auto_at(places: Steps, steps: int) -> Recipe:
    """The method `auto`, untuned, with these dense steps."""
    return replace(RECIPES["auto"], name=f"auto-{len(places)}", schedule=Places(dense=places, steps=steps))
