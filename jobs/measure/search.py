"""The search for the places of dense steps, with weights fitted to them."""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from caching.predict.multistep import Row
from caching.recipe.recipe import Multistep, Recipe
from caching.recipe.schedule import Places
from jobs.measure.judge import Judge
from jobs.measure.places import Steps, improve, spread
from jobs.measure.rollout import Rollouts

BENDS = (0.0, 0.15, 0.25)


MARGIN_DB = 0.3  # calibration prompts flatter what was chosen on them


HARD_PART = 6  # of so many prompts the hardest one decides where dense steps stand,


MIN_HARD = 4  # but no fewer than these do


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
    """The search itself; `say` is told of each stage's result.

    Places are chosen on the hardest prompts, those with the least fidelity at first: what is missed there early on
    grows step by step, while the others come out well with any sensible places. Weights are fitted to all prompts.
    """

    def __init__(self, judge: Judge, say: Callable[[str], None]) -> None:
        self.judge, self.say, self.rollouts = judge, say, Rollouts(judge)
        self.steps = judge.items[0].steps
        self.scores: dict[Steps, float] = {}
        count = max(MIN_HARD, len(judge.items) // HARD_PART)
        self.hard = Rollouts(judge, self._by_difficulty()[:count]) if count < len(judge.items) else self.rollouts

    def _by_difficulty(self) -> list[int]:
        """The prompts' numbers, hardest first."""
        fidelity = self.rollouts.latent_db(spread(self.rollouts.levels[:-1], max(2, self.steps // 6), BENDS[1]))
        return sorted(range(len(fidelity)), key=fidelity.__getitem__)

    def at(self, budget: int) -> Candidate:
        """The best schedule with `budget` dense steps."""
        return self._improved(self._guess(budget))

    def reaching(self, target_db: float) -> Candidate:
        """The fewest dense steps whose videos reach `target_db` on average."""
        base = self._guess(max(2, self.steps // 6))
        videos = statistics.mean(self.judge.video_db(self._candidate(base).recipe))
        wanted = target_db + statistics.mean(self.rollouts.latent_db(base)) - videos + MARGIN_DB
        low, high = (1, len(base)) if videos >= target_db else (len(base), self.steps)
        while high - low > 1:
            middle = (low + high) // 2
            score = statistics.mean(self.rollouts.latent_db(self._guess(middle)))
            low, high = (low, middle) if score >= wanted else (middle, high)
        best = self.at(high)
        while len(best.places) > 2:
            fewer = self.at(len(best.places) - 1)
            if statistics.mean(self.rollouts.latent_db(fewer.places)) < wanted:
                break
            best = fewer
        while statistics.mean(self.judge.video_db(best.recipe)) < target_db and len(best.places) < self.steps:
            best = self.at(len(best.places) + 1)
        return best

    def _guess(self, budget: int) -> Steps:
        """The best of a few schedules."""
        best = max(guesses(self.rollouts.levels[:-1], budget), key=self._score)
        self.say(f"{_described(best)}: {self._score(best):.2f} dB of latents, before the search")
        return best

    def _improved(self, start: Steps) -> Candidate:
        places, score = improve(start, self.steps, self._score, max_scores=12 * len(start))
        self.say(f"{_described(places)}: {score:.2f} dB of latents")
        return self._candidate(places)

    def _candidate(self, places: Steps) -> Candidate:
        return Candidate(places=places, weights=self.rollouts.fit(places).weights, steps=self.steps)

    def _score(self, places: Steps) -> float:
        """Mean and worst count alike: a mean can hide a prompt that went wrong."""
        if places not in self.scores:
            values = self.hard.latent_db(places)
            self.scores[places] = (statistics.mean(values) + min(values)) / 2
        return self.scores[places]


def guesses(times: list[float], budget: int) -> Iterator[Steps]:
    """Schedules to begin a search with: even ones, and some with a second dense step early on."""
    for bend in BENDS:
        yield spread(times, budget, bend)
        if budget > 2 and (wide := spread(times, budget - 1, bend))[1] > 1:
            yield (0, wide[1] // 2, *wide[1:])


def _described(places: Steps) -> str:
    return f"{len(places)} dense steps at {', '.join(map(str, places))}"
