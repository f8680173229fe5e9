"""Weights refined end to end: a Gauss-Newton step towards the final latents of full sampling, after the greedy fit.

A stage is fitted to lead back to where full sampling is at its end; which of the errors that are left matter at the
end of the video, that fit does not know. How the final latents depend on each weight is found by finite differences:
sampling is repeated from the stage on in which a weight has changed. That takes `n (n^2 - 1) / 6` dense steps a prompt
for `n` of them (120 for 9), all of which can run at once, and no gradients: neither memory for activations nor a way
back through attention kernels, offloading or ranks.

The equations of a prompt are kept apart, so the step that the others take can be tried on each: damping is chosen, and
the step taken or left, by what it does to prompts that did not choose it.

Legend: P weights of all stages together, C latent channels, F H W latent frames, height and width.
"""

import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise

import torch
from torch import Tensor

from caching.predict.multistep import Row, combine
from jobs.measure.sampling.judge import latent_psnr_db
from jobs.measure.tune.places import Steps
from jobs.measure.tune.rollout import Rollouts
from jobs.rank.solver import Solver

NUDGE = 0.02  # of a weight; errors are quadratic in weights to four digits there
DAMPINGS = (0.1, 0.01, 0.001)  # of the diagonal
FLOOR = 1e-9  # of its mean, where a weight changes nothing
MOST_REFINED = 13  # dense steps of a plan: what refining takes grows with their cube

Weights = tuple[Row, ...]


@dataclass(frozen=True, kw_only=True)
class Run:
    """A sampling of one prompt on its way: `velocities` are those of its dense steps so far."""

    latents: Tensor
    velocities: tuple[Tensor, ...]
    solver: Solver

    def heard(self, velocity: Tensor, *, anew: bool) -> "Run":
        """After a dense step; `anew` where a model takes over, so that what was said before counts no more."""
        return replace(self, velocities=(velocity,) if anew else (*self.velocities, velocity))

    def advanced(self, row: Row, to: int) -> "Run":
        """At the end of a stage."""
        solver = self.solver.fork()
        latents = solver.advance(self.latents, combine(row, list(self.velocities)), to=to)
        return replace(self, latents=latents, solver=solver)


@dataclass(frozen=True, kw_only=True)
class Slope:
    """How the relative squared error of one prompt's final latents depends on all weights, about where they are."""

    gram: Tensor  # [P, P], float64
    product: Tensor  # [P]

    def __add__(self, other: "Slope") -> "Slope":
        return Slope(gram=self.gram + other.gram, product=self.product + other.product)

    def __sub__(self, other: "Slope") -> "Slope":
        return Slope(gram=self.gram - other.gram, product=self.product - other.product)

    def step(self, damping: float) -> Tensor:
        """The change of weights `[P]` that lowers it most (Levenberg and Marquardt)."""
        diagonal = self.gram.diagonal()
        held = damping * diagonal + FLOOR * diagonal.mean()
        return -torch.linalg.solve(self.gram + held.diag(), self.product)


class Refinement:
    """Refines what was fitted to the prompts of some roll-outs."""

    def __init__(self, rollouts: Rollouts, *, until: float = float("inf")) -> None:
        self.rollouts, self.judge, self.until = rollouts, rollouts.judge, until
        self.numbers = list(rollouts.numbers)
        self.found = "not tried, for lack of time"

    def refine(self, places: Steps, weights: Weights) -> Weights | None:
        """Weights that serve prompts better which had no part in them, or None where there are none, or no time."""
        slopes: list[Slope] = []
        for number in self.numbers:
            if time.monotonic() > self.until:
                return None
            slopes.append(self._slope(number, places, weights))
        total = sum(slopes[1:], slopes[0])
        before = self._latent_db(places, [weights] * len(slopes))
        tried = {
            damping: self._latent_db(places, [moved(weights, (total - own).step(damping)) for own in slopes])
            for damping in DAMPINGS
        }
        best = max(tried, key=lambda damping: statistics.mean(tried[damping]))
        mean, worst = statistics.mean(tried[best]), min(tried[best])
        self.found = (
            f"{mean:.2f} dB of latents instead of {statistics.mean(before):.2f} on prompts that had no part in it, "
            f"worst {worst:.2f} instead of {min(before):.2f}"
        )
        holds = mean > statistics.mean(before) and worst >= min(before)
        return moved(weights, total.step(best)) if holds else None

    def _slope(self, number: int, places: Steps, weights: Weights) -> Slope:
        """By nudging each weight."""
        final, nudged = self._nudged(number, places, weights)
        error = (final - self.judge.references[number]).flatten().double()
        rows = torch.stack([(each - final).flatten() for each in nudged]) / NUDGE
        scale = error.square().sum()
        rows = rows.double()
        return Slope(gram=rows @ rows.T / scale, product=rows @ error / scale)

    def _nudged(self, number: int, places: Steps, weights: Weights) -> tuple[Tensor, list[Tensor]]:
        """The final latents of one prompt, and those with each weight changed, in the order of the weights."""
        plain, changed = self._begun(number), list[Run]()
        for stage, (place, end) in enumerate(pairwise((*places, self.rollouts.steps))):
            plain, *changed = self._dense([(number, run) for run in (plain, *changed)], place)
            new = [plain.advanced(row, end) for row in nudges(weights[stage])]
            plain, *changed = (run.advanced(weights[stage], end) for run in (plain, *changed))
            changed += new
        return plain.latents, [run.latents for run in changed]

    def _latent_db(self, places: Steps, of_prompts: Sequence[Weights]) -> list[float]:
        """PSNR of each prompt's final latents by weights of its own."""
        runs = [self._begun(number) for number in self.numbers]
        for stage, (place, end) in enumerate(pairwise((*places, self.rollouts.steps))):
            runs = self._dense(list(zip(self.numbers, runs, strict=True)), place)
            runs = [run.advanced(weights[stage], end) for run, weights in zip(runs, of_prompts, strict=True)]
        pairs = zip(runs, self.numbers, strict=True)
        return [latent_psnr_db(run.latents, self.judge.references[number]) for run, number in pairs]

    def _begun(self, number: int) -> Run:
        noise = self.judge.trajectories[number][:1]
        return Run(latents=noise, velocities=(), solver=self.rollouts.solver.fork())

    def _dense(self, runs: Sequence[tuple[int, Run]], place: int) -> list[Run]:
        velocities = self.judge.velocities([(number, run.latents) for number, run in runs], place)
        anew = place in self.rollouts.takeovers
        return [run.heard(velocity, anew=anew) for (_, run), velocity in zip(runs, velocities, strict=True)]


def dense_steps_to_refine(budget: int) -> int:
    """What a plan with so many dense steps takes, for each prompt."""
    return budget + budget * (budget**2 - 1) // 6 + (1 + len(DAMPINGS)) * budget


def nudges(row: Row) -> Iterator[Row]:
    """A row with each of its weights changed a little."""
    for place, weight in enumerate(row):
        yield (*row[:place], weight + NUDGE, *row[place + 1 :])


def moved(weights: Weights, step: Tensor) -> Weights:
    """Weights with a change `[P]` of all of them."""
    ends = list(accumulate(len(row) for row in weights))
    changes = [step[end - len(row) : end].tolist() for row, end in zip(weights, ends, strict=True)]
    return tuple(
        tuple(weight + change for weight, change in zip(row, own, strict=True))
        for row, own in zip(weights, changes, strict=True)
    )
