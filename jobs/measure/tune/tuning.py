"""The fewest dense steps that reach a fidelity, or the best places for a number of them, found by measuring.

Weights are fitted to one half of the prompts, places are chosen by cross-validation on it, and what is promised is
measured on the other half.
"""

import math
import statistics
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from caching.recipe.recipe import Multistep, Recipe
from jobs.console import count, duration
from jobs.errors import BadInput
from jobs.measure.sampling.executor import Executor, RememberingExecutor
from jobs.measure.sampling.gangs import executor_for
from jobs.measure.sampling.judge import Judge, calibration_items, sampled_in_full
from jobs.measure.sampling.task import Noise, Velocity
from jobs.measure.tune.held_out import HeldOut, auto_at, promise_of
from jobs.measure.tune.places import Steps
from jobs.measure.tune.plan_file import write_plan
from jobs.measure.tune.refine import MOST_REFINED, Refinement, dense_steps_to_refine
from jobs.measure.tune.rivals.registry import RIVALS
from jobs.measure.tune.rollout import Rollouts
from jobs.measure.tune.search import MOST_PER_DENSE_STEP, Candidate, Search
from jobs.models.directory import transformers_of
from jobs.models.facts import read_facts
from jobs.options.measure import TuneOptions
from jobs.request.guidance import guides_for
from jobs.request.prompts import Item
from jobs.request.tuned import Circumstances, Tuned, circumstances
from jobs.store.files import check_file

TYPICAL = 16  # prompts to fit to
TO_PROMISE = 2  # times as many tell what to expect: of 16, one in ten is hardly known
LEAST = 2
PLAN = Path("plan.yaml")  # unless --out says where
SAMPLING_PART = 0.6  # of the time that is given goes to full sampling
STILL_GAINS_DB = 0.3  # of latents


def tune(options: TuneOptions, console: Console) -> None:
    """Search and write the recipe. Raises BadInput before anything is loaded."""
    target, out = _target(options), options.out or PLAN
    check_file(out, "--out")
    facts = read_facts(options.model, variant=options.video.variant)
    if options.search in RIVALS and len(transformers_of(facts.directory, facts.family)) > 1:
        raise BadInput(f"--search {options.search} is for one transformer, and {facts.name} has two that take turns")
    if facts.family.predicts_epsilon:
        raise BadInput(f"resca tune fits weights of velocities, and {facts.name} says epsilon; auto needs no fitting")
    items = calibration_items(options, facts, *_wanted(options))
    steps = items[0].steps
    if options.budget_dense and options.budget_dense > steps:
        raise BadInput(f"--budget-dense {options.budget_dense} is more than the {steps} steps of a video")
    about = circumstances(facts, items, guides_for(facts, options.video), options.video.dtype)
    with executor_for(facts, options.video, options.on, console) as inner:
        executor = RememberingExecutor(inner, out.with_name(f"{out.name}.work"), _identity(about))
        try:
            _tune(options, console, executor, target, items, about, out)
        except KeyboardInterrupt:
            console.print(f"stopped; run it again to go on from what {executor.folder} keeps", soft_wrap=True)
            raise
    executor.forget()


def _tune(
    options: TuneOptions,
    console: Console,
    executor: RememberingExecutor,
    target: float,
    items: list[Item],
    about: Circumstances,
    out: Path,
) -> None:
    """With a model at hand."""
    began = time.monotonic()
    step_s = _seconds_of_a_step(executor.inner, items[0])
    fitted_to, held_out = _split(items, options, step_s)
    _announce(console, options, [*fitted_to, *held_out], len(fitted_to), step_s)
    judge, held = sampled_in_full(executor, [fitted_to, held_out], console)
    if executor.num_known:
        console.print(
            f"{executor.folder} has {count(executor.num_known, 'sampling')} of an earlier run, taken as found"
        )
    until = began + 60 * options.minutes if options.minutes else math.inf
    search = Search(Rollouts(judge), lambda line: console.print(line, soft_wrap=True), until=until)
    tuning = Tuning(search, judge, HeldOut(held, console), console, even=options.search == "even")
    if options.search in RIVALS and options.budget_dense:
        method = RIVALS[options.search].search(search.rollouts, options.budget_dense)
    else:
        method = tuning.at(options.budget_dense) if options.budget_dense else tuning.reaching(target)
        tuning.say_whether_more_prompts_would_help(method)
    promise, auto = map(promise_of, tuning.held.measure(method, tuning.auto(tuning.num_dense(method))))
    tuned = Tuned(
        **dict(about),
        calibrated_on=len(fitted_to),
        promise=promise,
        auto=auto,
    )
    write_plan(out, method, tuned)
    spent = f"{judge.dense_steps + held.dense_steps} dense steps in {duration(time.monotonic() - began)}"
    console.print(
        f"{tuning.num_dense(method)} dense steps of {items[0].steps}: {tuned.promise}; spent {spent}; recipe: {out}",
        soft_wrap=True,
    )


class Tuning:
    """Searches, and takes only what holds on prompts that are held out."""

    def __init__(self, search: Search, judge: Judge, held: HeldOut, console: Console, *, even: bool) -> None:
        self.search, self.judge, self.held, self.console, self.is_even = search, judge, held, console, even
        self.found: dict[int, Steps] = {}

    def at(self, budget: int) -> Recipe:
        """The best method with `budget` dense steps, on held-out prompts never worse than `auto`."""
        auto = self.auto(budget)
        for candidate in self._candidates(budget):
            method = candidate.recipe
            if not self.held.is_worse(method, auto):
                return method
            self._say(
                f"dense steps at {', '.join(map(str, candidate.places))} are left: {self.held.promise(method)}, where "
                f"untuned auto has {self.held.promise(auto)}"
            )
        return auto

    def reaching(self, target_db: float) -> Recipe:
        """The one with the fewest dense steps whose held-out videos reach `target_db` on average."""
        enough_db = self._latents_for(target_db)
        least = max(2, self.search.least)
        number = max(least, self.search.fewest(enough_db))  # at even distances; found ones may need fewer
        while number > least and statistics.mean(self.search.unseen_db(self._places(number - 1))) >= enough_db:
            number -= 1
        method = self.at(number)
        while self.held.mean_db(method) < target_db and self.num_dense(method) < self.search.steps:
            method = self.at(self.num_dense(method) + 1)
        return method

    def auto(self, budget: int) -> Recipe:
        """Untuned, with as many dense steps."""
        return auto_at(self.search.even(budget), self.search.steps)

    def num_dense(self, method: Recipe) -> int:
        """The dense steps of a video."""
        return sum(method.dense_plan(self.search.steps))

    def say_whether_more_prompts_would_help(self, method: Recipe) -> None:
        """By what the second half of the prompts has gained on those held out."""
        number = len(self.judge.items)
        if number < 2 * LEAST or not isinstance(method.predictor, Multistep):
            return
        places = tuple(step for step, dense in enumerate(method.dense_plan(self.search.steps)) if dense)
        weights = Rollouts(self.judge, range(number // 2)).fit(places).weights
        half = Candidate(places=places, weights=weights, steps=self.search.steps).recipe
        gain = self.held.mean_latent_db(method) - self.held.mean_latent_db(half)
        verdict = "more prompts would still gain" if gain > STILL_GAINS_DB else "more prompts would hardly change it"
        self._say(
            f"weights fitted to {number} prompts instead of {number // 2} gain {gain:.2f} dB of latents: {verdict}"
        )

    def _candidates(self, budget: int) -> Iterator[Candidate]:
        for places in dict.fromkeys((self._places(budget), self.search.even(budget))):
            fitted = self.search.fitted(places)
            if refined := self._refined(fitted):
                yield refined
            yield fitted

    def _refined(self, fitted: Candidate) -> Candidate | None:
        """With weights that were refined end to end, where that serves prompts that had no part in it."""
        if len(fitted.places) > MOST_REFINED:
            return None
        refinement = Refinement(self.search.rollouts, until=self.search.until)
        weights = refinement.refine(fitted.places, fitted.weights)
        self._say(f"weights refined end to end: {refinement.found}")
        return replace(fitted, weights=weights) if weights else None

    def _places(self, budget: int) -> Steps:
        """Where so many dense steps stand best."""
        if budget not in self.found:
            self.found[budget] = self.search.even(budget) if self.is_even else self.search.at(budget)
        return self.found[budget]

    def _latents_for(self, target_db: float) -> float:
        """The fidelity of latents that goes with one of videos, by what both are with a typical number of steps."""
        base = self.search.even(max(2, self.search.steps // 6))
        [videos_db] = self.judge.decoded_db(self.search.rollouts.fit(base, crossed=True).latents)
        return target_db + statistics.mean(self.search.unseen_db(base)) - statistics.mean(videos_db)

    def _say(self, line: str) -> None:
        self.console.print(line, soft_wrap=True)


def _target(options: TuneOptions) -> float:
    if (options.target is None) == (options.budget_dense is None):
        raise BadInput("give either --target psnr=DECIBELS or --budget-dense STEPS")
    if options.budget_dense is not None and options.budget_dense < 2:
        raise BadInput(f"--budget-dense must be at least 2, not {options.budget_dense}")
    if options.search in RIVALS and options.budget_dense is None:
        raise BadInput(f"--search {options.search} takes --budget-dense STEPS, not a target")
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


def _wanted(options: TuneOptions) -> tuple[int, int]:
    """Prompts to fit to, and prompts to promise by."""
    number = TYPICAL if options.num is None else options.num
    return number, TO_PROMISE * number if options.held_out is None else options.held_out


def _identity(about: Circumstances) -> str:
    """What samplings depend on beside the prompt and its size."""
    return about.model_dump_json(exclude={"sizes"})


def _seconds_of_a_step(executor: Executor, item: Item) -> float:
    """Of a dense one, all its passes together; the first pays what the first one pays."""
    noise, seconds = executor.map([Noise(item=item)])[0], 0.0
    for _ in range(2):
        started = time.monotonic()
        executor.map([Velocity(item=item, latents=noise, level=1.0)])
        seconds = time.monotonic() - started
    return seconds


def _split(items: list[Item], options: TuneOptions, step_s: float) -> tuple[list[Item], list[Item]]:
    """Prompts to fit to and prompts to promise by: as many as there are, or as there is time for."""
    (number, held_out), most = _wanted(options), len(items)
    if options.minutes and options.num is None:
        most = min(most, int(SAMPLING_PART * 60 * options.minutes / (items[0].steps * step_s)))
    if number + held_out > most:
        number = min(number, most // 2)
        held_out = most - number
    number, held_out = max(number, LEAST), max(held_out, LEAST)
    if number + held_out > len(items):
        raise BadInput(
            f"{count(len(items), 'prompt')} cannot be parted: {LEAST} at least to fit to, and {LEAST} to see how well "
            "that holds"
        )
    return items[:number], items[len(items) - held_out :]


def _announce(console: Console, options: TuneOptions, items: list[Item], num_fitted: int, step_s: float) -> None:
    """What will be spent, before it is."""
    full = sum(item.steps for item in items)
    search = _steps_to_search(options, num_fitted, len(items) - num_fitted, items[0].steps)
    is_cut_off = options.minutes and options.search not in RIVALS
    limit = f", cut off after {options.minutes:g} min" if is_cut_off else ""
    console.print(
        f"{num_fitted} prompts to fit to and {len(items) - num_fitted} held out: {full} dense steps of full sampling, "
        f"then at most about {search} of the search, of {step_s:.2g} s each: {duration(full * step_s)} and "
        f"{duration(search * step_s)}{limit}",
        soft_wrap=True,
    )


def _steps_to_search(options: TuneOptions, num_fitted: int, num_held_out: int, steps: int) -> int:
    """The dense steps beside full sampling, at most about."""
    budget = options.budget_dense or max(2, steps // 6)
    if rival := RIVALS.get(options.search):
        return num_fitted * rival.cost(steps, budget) + 2 * num_held_out * budget
    refined = num_fitted * dense_steps_to_refine(budget) if budget <= MOST_REFINED else 0
    return num_fitted * budget * (2 + MOST_PER_DENSE_STEP * budget // 2) + 4 * num_held_out * budget + refined
