"""The search for the places of dense steps, with weights fitted to them."""

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import sqrt

from caching.predict.multistep import Row
from caching.recipe.recipe import Multistep, Recipe
from caching.recipe.schedule import Places, even_places
from jobs.measure.tune.places import Steps, improve, spread, through
from jobs.measure.tune.rollout import Rollouts

BENDS = (0.15, 0.25)
MOST_PER_DENSE_STEP = 4  # schedules that are tried, for each dense step that there is to place


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """Dense steps with the weights that were fitted to them."""

    places: Steps
    weights: tuple[Row, ...]
    steps: int

    @property
    def recipe(self) -> Recipe:
        """As a method that can be rendered with."""
        schedule = Places(dense=self.places, steps=self.steps)
        return Recipe(name=f"auto-{len(self.places)}", schedule=schedule, predictor=Multistep(weights=self.weights))


class Search:
    """Dense steps begin at even distances, and move only where that serves prompts that weights were not fitted to.

    What overfits is the choice of places, not the weights: with few prompts there always are places that happen to suit
    them. So each schedule is judged by cross-validation, every prompt sampled with the weights of the others, and one
    schedule is better than another only if it gains more than chance on average and loses nothing on the worst prompt.

    Args:
        say: told of what was found.
        until: when to stop looking, by `time.monotonic`.
    """

    def __init__(self, rollouts: Rollouts, say: Callable[[str], None], *, until: float = float("inf")) -> None:
        self.rollouts, self.say, self.until = rollouts, say, until
        self.levels, self.steps, self.fixed = rollouts.levels[:-1], rollouts.steps, rollouts.takeovers
        self.known: dict[Steps, list[float]] = {}

    def even(self, budget: int) -> Steps:
        """As many dense steps at even distances, but for those at which a model takes over, each of which is one."""
        return through(even_places(self.steps, max(budget, self.least)), self.fixed)

    @property
    def least(self) -> int:
        """The fewest dense steps that there can be."""
        return 1 + len(self.fixed)

    def at(self, budget: int) -> Steps:
        """The best schedule with `budget` dense steps."""
        start, asked = self.even(budget), len(self.known)
        self.say(f"{self._described(start)}, at even distances")

        def may_ask() -> bool:
            return len(self.known) - asked < MOST_PER_DENSE_STEP * budget and time.monotonic() < self.until

        for guess in guesses(self.levels, budget):
            if may_ask() and self.is_better(guess := through(guess, self.fixed), start):
                start = guess
        places = improve(start, self.steps, self.is_better, may_ask, self.fixed)
        self.say(f"{self._described(places)}, found")
        return places

    def fitted(self, places: Steps) -> Candidate:
        """With weights that are fitted to all prompts."""
        return Candidate(places=places, weights=self.rollouts.fit(places).weights, steps=self.steps)

    def fewest(self, enough_db: float) -> int:
        """The fewest dense steps at even distances with so much fidelity of latents on average, or all."""
        low, high = max(1, self.least - 1), self.steps
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (
                (low, middle) if statistics.mean(self.unseen_db(self.even(middle))) >= enough_db else (middle, high)
            )
        return high

    def unseen_db(self, places: Steps) -> list[float]:
        """Fidelity of each prompt's latents, by weights that were fitted to the others."""
        if places not in self.known:
            self.known[places] = self.rollouts.latent_db(places, crossed=True)
        return self.known[places]

    def is_better(self, new: Steps, old: Steps) -> bool:
        """Whether prompts gain by more than a standard error on average, and the worst one loses nothing."""
        after, before = self.unseen_db(new), self.unseen_db(old)
        gains = [now - then for now, then in zip(after, before, strict=True)]
        chance = statistics.stdev(gains) / sqrt(len(gains))
        return statistics.mean(gains) > chance and min(after) >= min(before)

    def _described(self, places: Steps) -> str:
        fidelity = self.unseen_db(places)
        return (
            f"{len(places)} dense steps at {', '.join(map(str, places))}: {statistics.mean(fidelity):.2f} dB of "
            f"latents on unseen prompts, worst {min(fidelity):.2f}"
        )


def guesses(times: list[float], budget: int) -> Iterator[Steps]:
    """Schedules that may be better than an even one: denser where noise falls fast, or with a second one early on."""
    for bend in (0.0, *BENDS):
        if bend:
            yield spread(times, budget, bend)
        if budget > 2 and (wide := spread(times, budget - 1, bend))[1] > 1:
            yield (0, wide[1] // 2, *wide[1:])
