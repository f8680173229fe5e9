"""Few dense steps on all calibration prompts at once; the weights of each stage are fitted before the next begins.

So each stage also makes good what the earlier ones did wrong, which no fit of single predictions can.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor

from caching.predict.multistep import Evidence, Row, combine, solver_weights
from jobs.measure.sampling.judge import Judge, latent_psnr_db
from jobs.measure.tune.places import Steps
from jobs.rank.solver import Solver

MAX_KNOWN = 512  # velocities that are kept, of all prompts together: a search moves one dense step at a time


@dataclass(frozen=True, kw_only=True)
class Rollout:
    """A sampling at its end: the latents of each prompt `[1, C, F, H, W]`, and the weights of each stage."""

    latents: list[Tensor]
    weights: tuple[Row, ...]


class Rollouts:
    """Samples the prompts of a judge, or `only` those with some numbers, by any places of dense steps."""

    def __init__(self, judge: Judge, only: Sequence[int] | None = None) -> None:
        self.judge, self.steps = judge, judge.items[0].steps
        self.numbers = range(len(judge.items)) if only is None else only
        self.levels, self.solver, self.takeovers = judge.levels, judge.solver, judge.takeovers
        self.known: dict[tuple[bool, Steps], list[Tensor]] = {}

    def fit(self, places: Steps, *, crossed: bool = False) -> Rollout:
        """The sampling with these dense steps; `places` begin with 0 and have each step at which a model takes over.

        Where it is `crossed`, each prompt is sampled in every stage with weights that were fitted to the others: that
        is how well the places serve unseen prompts. It takes two prompts or more.
        """
        weights: list[Row] = []
        latents = self._full_at(0)
        velocities: list[list[Tensor]] = [[] for _ in latents]
        solvers = [self.solver.fork() for _ in latents]
        nodes: list[float] = []
        for number, (begin, end) in enumerate(pairwise((*places, self.steps)), 1):
            if begin in self.takeovers:
                nodes, velocities = [], [[] for _ in latents]
            news = self._velocities(places[:number], latents, crossed)
            for values, new in zip(velocities, news, strict=True):
                values.append(new)
            nodes.append(self.levels[begin])
            prior = solver_weights(nodes, self.levels[begin : end + 1])
            evidence = [
                Evidence.of(values, _wanted(solver, now, goal, end), prior)
                for values, solver, now, goal in zip(velocities, solvers, latents, self._full_at(end), strict=True)
            ]
            total = Evidence.total(evidence)
            weights.append(total.weights)
            rows = [total.without(own).weights if crossed else total.weights for own in evidence]
            latents = [
                solver.advance(now, combine(row, values), to=end)
                for solver, now, row, values in zip(solvers, latents, rows, velocities, strict=True)
            ]
        return Rollout(latents=latents, weights=tuple(weights))

    def latent_db(self, places: Steps, *, crossed: bool = False) -> list[float]:
        """PSNR of each prompt's final latents."""
        pairs = zip(self.fit(places, crossed=crossed).latents, self._full_at(self.steps), strict=True)
        return [latent_psnr_db(mine, full) for mine, full in pairs]

    @cached_property
    def full_velocities(self) -> list[Tensor]:
        """What the model says at each step of full sampling, of each prompt `[T, C, F, H, W]`."""
        said = [self.velocities(self._full_at(step), step) for step in range(self.steps)]
        return [torch.cat(of_a_prompt) for of_a_prompt in zip(*said, strict=True)]

    def velocities(self, latents: list[Tensor], step: int) -> list[Tensor]:
        """What the model says before a step of the latents `[1, C, F, H, W]` of each prompt."""
        return self.judge.velocities(list(zip(self.numbers, latents, strict=True)), step)

    def _full_at(self, step: int) -> list[Tensor]:
        """Where full sampling is before a step, or at the end."""
        return [self.judge.trajectories[number][step : step + 1] for number in self.numbers]

    def _velocities(self, places: Steps, latents: list[Tensor], crossed: bool) -> list[Tensor]:
        """What the model says at the last of these places, to which the ones before it have led."""
        road = (crossed and places != (0,), places)  # all begin in the same noise
        if road not in self.known:
            self.known[road] = self.velocities(latents, places[-1])
            while len(self.known) * len(latents) > MAX_KNOWN and len(self.known) > 1:
                del self.known[next(iter(self.known))]
        self.known[road] = self.known.pop(road)  # what was used last goes last
        return self.known[road]


def _wanted(solver: Solver, latents: Tensor, goal: Tensor, end: int) -> Tensor:
    """The velocity that leads from latents to a goal by step `end`; where any solver ends is linear in it."""
    still = solver.fork().advance(latents, torch.zeros_like(latents), to=end)
    moved = solver.fork().advance(latents, torch.ones_like(latents), to=end)
    return (goal - still) / (moved - still).mean()
