"""What a method is worth on prompts that nothing was fitted to."""

import statistics
from collections.abc import Sequence
from dataclasses import replace
from math import comb, sqrt

from rich.console import Console
from rich.progress import Progress

from caching.recipe.recipe import RECIPES, Recipe
from caching.recipe.schedule import Places
from jobs.measure.sampling.judge import Judge
from jobs.measure.tune.places import Steps
from jobs.request.tuned import Promise

CONFIDENCE = 0.8


class HeldOut:
    """The held-out prompts; each method is measured once.

    Decoding is most of the time, so methods that are to be compared are measured together: full sampling is decoded
    once for all of them.
    """

    def __init__(self, judge: Judge, console: Console) -> None:
        self.judge, self.console = judge, console
        self.known: dict[Recipe, list[float]] = {}
        self._of_latents: dict[Recipe, list[float]] = {}

    def measure(self, *methods: Recipe) -> list[list[float]]:
        """PSNR of each prompt's video, by method."""
        new = [method for method in dict.fromkeys(methods) if method not in self.known]
        if new:
            self.known.update(zip(new, self._video_db(new), strict=True))
        return [self.known[method] for method in methods]

    def promise(self, method: Recipe) -> Promise:
        """What can be expected of other prompts."""
        return promise_of(*self.measure(method))

    def mean_latent_db(self, method: Recipe) -> float:
        """PSNR of the latents, on average; nothing is decoded for it."""
        if method not in self._of_latents:
            self._of_latents[method] = self.judge.latent_db(method)
        return statistics.mean(self._of_latents[method])

    def mean_db(self, method: Recipe) -> float:
        """PSNR of the videos, on average."""
        return statistics.mean(*self.measure(method))

    def is_worse(self, method: Recipe, other: Recipe) -> bool:
        """Whether a method is below another, on average or on the worst prompt."""
        mine, others = self.measure(method, other)
        return min(mine) < min(others) or statistics.mean(mine) < statistics.mean(others)

    def _video_db(self, methods: Sequence[Recipe]) -> list[list[float]]:
        """Shows how far it is."""
        number = len(self.judge.items)
        with Progress(console=self.console) as bar:
            sampled = bar.add_task("sampling held-out prompts", total=number * len(methods))
            latents = [self.judge.sample(method, lambda *_: bar.advance(sampled)) for method in methods]
            self._of_latents.update(zip(methods, map(self.judge.compare, latents), strict=True))
            decoded = bar.add_task("decoding them", total=number)
            return self.judge.decoded_db(*latents, heard=lambda *_: bar.advance(decoded))


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
