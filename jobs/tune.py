"""`resca tune`: the fewest dense steps that reach a fidelity, or the best places for a number of them, by measuring.

Candidates are compared on latents, which costs no decoding; what is promised is checked on videos.
"""

import math
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from itertools import product

import yaml

from caching.places import Steps, improve, spread
from caching.recipe import Recipe, Taylor
from caching.schedule import Places
from jobs.benchmark import Contest
from jobs.errors import BadInput
from jobs.facts import read_facts
from jobs.judge import Judge, calibration_items
from jobs.options import TuneOptions
from jobs.outputs import write_text
from jobs.progress import make_console

PREDICTORS = [Taylor(order=order, correction=part) for order, part in ((1, 0.0), (1, 0.5), (1, 1.0), (2, 0.5))]
BENDS = (0.0, 0.25, 0.5)
MARGIN_DB = 0.3  # calibration prompts flatter what was chosen on them


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A schedule with its predictor."""

    places: Steps
    predictor: Taylor
    steps: int

    @property
    def recipe(self) -> Recipe:
        """As a method that can be rendered with."""
        return Recipe(name="auto", schedule=Places(dense=self.places, steps=self.steps), predictor=self.predictor)


def run(options: TuneOptions) -> int:
    """Search and write the recipe. Raises BadInput before anything is loaded."""
    target = _target(options)
    facts = read_facts(options.model)
    items = calibration_items(options, facts)
    if options.budget_dense and options.budget_dense > items[0].steps:
        raise BadInput(f"--budget-dense {options.budget_dense} is more than the {items[0].steps} steps of a video")
    console = make_console()
    with console.status("sampling the calibration prompts in full"):
        judge = Judge(Contest(facts, options.video), items)
    search = Search(judge, lambda line: console.print(line, soft_wrap=True))
    found = search.at(options.budget_dense) if options.budget_dense else search.reaching(target)
    measured = judge.video_db(found.recipe)
    _write(options, found, measured)
    console.print(
        f"{len(found.places)} dense steps of {found.steps}: {statistics.mean(measured):.2f} dB, worst "
        f"{min(measured):.2f} dB, on {len(items)} calibration prompts; spent {judge.dense_steps} dense steps; "
        f"recipe: {options.out}",
        soft_wrap=True,
    )
    return 0


class Search:
    """The search itself; `say` is told of each stage's result."""

    def __init__(self, judge: Judge, say: Callable[[str], None]) -> None:
        self.judge, self.say = judge, say
        self.steps = judge.items[0].steps
        self.times = judge.contest.renderer.noise_levels(self.steps)
        self.scores: dict[Candidate, float] = {}

    def at(self, budget: int) -> Candidate:
        """The best schedule with `budget` dense steps."""
        return self._improved(self._start(budget))

    def reaching(self, target_db: float) -> Candidate:
        """The fewest dense steps whose videos reach `target_db` on average."""
        base = self._start(max(2, self.steps // 6))
        offset = statistics.mean(self.judge.video_db(base.recipe)) - statistics.mean(self.judge.latent_db(base.recipe))
        wanted = target_db - offset + MARGIN_DB
        low, high = 1, self.steps
        while high - low > 1:
            middle = (low + high) // 2
            score = statistics.mean(self.judge.latent_db(self._start_like(base, middle).recipe))
            self.say(f"{middle} dense steps, not yet searched: about {score + offset:.1f} dB")
            low, high = (low, middle) if score >= wanted else (middle, high)
        best = self._start_like(base, high)
        while len(best.places) > 2:
            fewer = self._improved(self._start_like(base, len(best.places) - 1))
            if statistics.mean(self.judge.latent_db(fewer.recipe)) < wanted:
                break
            best = fewer
        while statistics.mean(self.judge.video_db(best.recipe)) < target_db and len(best.places) < self.steps:
            best = self._improved(self._start_like(base, len(best.places) + 1))
        return best

    def _start(self, budget: int) -> Candidate:
        """The best of a few guesses."""
        candidates = [
            Candidate(places=spread(self.times, budget, bend), predictor=predictor, steps=self.steps)
            for predictor, bend in product(PREDICTORS, BENDS)
        ]
        best = max(candidates, key=self._score)
        self.bend = next(bend for bend in BENDS if spread(self.times, budget, bend) == best.places)
        self.say(f"{budget} dense steps: {best.predictor}, bend {self.bend}, {self._score(best):.2f} dB of latents")
        return best

    def _start_like(self, base: Candidate, budget: int) -> Candidate:
        return replace(base, places=spread(self.times, budget, self.bend))

    def _improved(self, start: Candidate) -> Candidate:
        places, score = improve(
            start.places,
            self.steps,
            lambda places: self._score(replace(start, places=places)),
            max_scores=12 * len(start.places),
        )
        self.say(f"{len(places)} dense steps at {', '.join(map(str, places))}: {score:.2f} dB of latents")
        return replace(start, places=places)

    def _score(self, candidate: Candidate) -> float:
        """Mean and worst count alike: a mean can hide a prompt that went wrong."""
        if candidate not in self.scores:
            values = self.judge.latent_db(candidate.recipe)
            self.scores[candidate] = (statistics.mean(values) + min(values)) / 2
        return self.scores[candidate]


def _target(options: TuneOptions) -> float:
    if (options.target is None) == (options.budget_dense is None):
        raise BadInput("give either --target psnr=DECIBELS or --budget-dense STEPS")
    if options.budget_dense is not None and options.budget_dense < 2:
        raise BadInput(f"--budget-dense must be at least 2, not {options.budget_dense}")
    if options.target is None:
        return math.nan
    name, _, value = options.target.partition("=")
    try:
        target = float(value)
    except ValueError:
        target = math.nan
    if name != "psnr" or not 0 < target < 100:
        raise BadInput(f"--target must be psnr=DECIBELS, such as psnr=40, not {options.target}")
    return target


def _write(options: TuneOptions, found: Candidate, measured: list[float]) -> None:
    """A recipe file; what it is worth stands above it, as comments."""
    heading = (
        f"# tuned on {len(measured)} prompts with model {options.model}: "
        f"mean {statistics.mean(measured):.2f} dB, worst {min(measured):.2f} dB of PSNR against full sampling\n"
    )
    settings = asdict(found.recipe)
    settings["schedule"]["dense"] = list(found.places)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(options.out, heading + yaml.safe_dump(settings, sort_keys=False))
