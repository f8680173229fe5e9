"""BudCache: places of dense steps by simulated annealing against the final latents (Lei et al., ICML 2026).

Between dense steps the output is reused, without weights. Published with it, and not here: other noise levels for the
places that were found.
"""

import math
import random
import statistics
from collections.abc import Callable, Iterator

from caching.recipe.recipe import REUSE, Recipe
from caching.recipe.schedule import Places, even_places
from jobs.measure.tune.places import Steps, improve
from jobs.measure.tune.rollout import Rollout, Rollouts

ANNEALED, POLISHED = 200, 100  # schedules that are scored at random, and then in order
WARM_DB, COLD_DB = 2.0, 0.02  # how much worse a schedule may well be at first and at last

Score = Callable[[Steps], float]


def budcache(rollouts: Rollouts, budget: int) -> Recipe:
    """The dense steps whose reuse ends nearest to full sampling, on average of the prompts."""
    reused, known = Reused(rollouts.judge, rollouts.numbers), dict[Steps, float]()

    def score(places: Steps) -> float:
        if places not in known:
            known[places] = statistics.mean(reused.latent_db(places))
        return known[places]

    start = even_places(rollouts.steps, budget)
    places, _ = anneal(start, rollouts.steps, score, max_scores=ANNEALED)
    most = len(known) + POLISHED
    places = improve(places, rollouts.steps, lambda new, old: score(new) > score(old), lambda: len(known) < most)
    return Recipe(name=f"budcache-{budget}", schedule=Places(dense=places, steps=rollouts.steps), predictor=REUSE)


class Reused(Rollouts):
    """Samples the prompts without weights: the velocity of a dense step serves until the next one."""

    def fit(self, places: Steps, *, crossed: bool = False) -> Rollout:
        latents = self._full_at(0)
        solvers = [self.solver.fork() for _ in latents]
        for number, end in enumerate((*places[1:], self.steps), 1):
            stage = zip(solvers, latents, self._velocities(places[:number], latents, crossed), strict=True)
            latents = [solver.advance(now, velocity, to=end) for solver, now, velocity in stage]
        weights = tuple((*[0.0] * number, 1.0) for number in range(len(places)))
        return Rollout(latents=latents, weights=weights)


def anneal(start: Steps, num_steps: int, score: Score, *, max_scores: int, seed: int = 0) -> tuple[Steps, float]:
    """The best schedule that a random walk comes by, with its score; a dense step becomes sparse, and another dense.

    A worse schedule is gone on from, too, with a probability that falls with what is lost and as the walk cools.
    """
    chance = random.Random(seed)
    best = now = start
    best_score = now_score = score(start)
    for warmth in _cooling(max_scores - 1):
        candidate = _swapped(now, num_steps, chance)
        found = score(candidate)
        if found >= now_score or chance.random() < math.exp((found - now_score) / warmth):
            now, now_score = candidate, found
        if now_score > best_score:
            best, best_score = now, now_score
    return best, best_score


def _cooling(count: int) -> Iterator[float]:
    """How warm each of the steps of a walk is, in decibels."""
    for step in range(count):
        yield WARM_DB * (COLD_DB / WARM_DB) ** (step / max(count - 1, 1))


def _swapped(places: Steps, num_steps: int, chance: random.Random) -> Steps:
    """Any dense step but the first in another place; the very schedule where there is no other."""
    free = sorted(set(range(num_steps)) - set(places))
    if not free or len(places) == 1:
        return places
    gone = chance.choice(places[1:])
    return tuple(sorted({*places, chance.choice(free)} - {gone}))
