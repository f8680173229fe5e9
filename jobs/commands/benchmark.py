"""`resca benchmark`: methods compared on the same prompts and seeds, in one process, interleaved."""

import sys
from dataclasses import replace
from typing import Any

import numpy as np
from rich.console import Console

from caching.recipe.recipe import Multistep, Recipe, Taylor
from caching.recipe.schedule import Interval
from jobs.console import make_console, print_rows, write_rows
from jobs.demo import PROMPTS_FILE
from jobs.demo.items import benchmark_items
from jobs.errors import DONE, INTERRUPTED, BadInput
from jobs.machine import describe_run
from jobs.measure.contest import Contest, Tally, make_rows
from jobs.measure.contestants import Contestant, PeerContestant, RecipeContestant
from jobs.measure.report import write_report
from jobs.models.facts import ModelFacts, read_facts
from jobs.options.measure import BenchmarkOptions
from jobs.request.checks import defaults_for
from jobs.request.prompts import Item, read_items
from jobs.request.recipes import read_recipe, resolve_method

SHOWN = 4  # videos on a report's page


def run(options: BenchmarkOptions) -> int:
    """Compare the methods and print one row each. Raises BadInput before anything is loaded."""
    console = make_console()
    _check(options)
    facts = read_facts(options.model)
    items = _items(options, facts)
    methods = _methods(options, facts, items)
    tallies = [Tally(contestant) for contestant in _contestants(methods, options.peers, console)]
    contest = Contest(facts, options.video)
    contest.warm_up(tallies, items[0])
    shown: dict[str, dict[str, np.ndarray]] = {}
    played = _play(contest, tallies, items, shown if options.report else None, console)
    rows = make_rows(tallies)
    print_rows(console, rows)
    if options.json:
        write_rows(options.json, rows)
    if options.report:
        peers = len(tallies) - len(methods)
        title = f"{len(methods)} methods and {peers} peers, {options.model}: {played} videos"
        write_report(options.report, rows, shown, title, describe_run(sys.argv[1:]))
    return DONE if played == len(items) else INTERRUPTED


def _play(
    contest: Contest, tallies: list[Tally], items: list[Item], shown: dict[str, Any] | None, console: Console
) -> int:
    """Render every item with every contestant, or those before Ctrl-C; returns how many, keeps the first in `shown`."""
    played = 0
    try:
        for item in items:
            videos = contest.play_all(tallies, item)
            if shown is not None and played < SHOWN:
                shown[f"{item.prompt} (seed {item.seed})"] = videos
            played += 1
            _report(console, played, len(items), tallies)
    except KeyboardInterrupt:
        if not played:
            raise
        console.print(f"stopped: figures are of {played} of {len(items)} videos")
        for tally in tallies:
            tally.keep(played)
    return played


def _contestants(methods: list[Recipe], with_peers: bool, console: Console) -> list[Contestant]:
    """Our methods, and if asked for the peers that are installed."""
    contestants: list[Contestant] = [RecipeContestant(method, _warm_up_recipe(method)) for method in methods]
    if not with_peers:
        return contestants
    from jobs.measure.peers import PEERS

    for package in sorted({str(peer.needs) for peer in PEERS if not peer.available}):
        console.print(f"without {package}, which is not installed", soft_wrap=True)
    return [*contestants, *(PeerContestant(peer) for peer in PEERS if peer.available)]


def _warm_up_recipe(method: Recipe) -> Recipe:
    """The method with dense and sparse steps in few steps."""
    predictor = Taylor() if isinstance(method.predictor, Multistep) else method.predictor
    return replace(method, schedule=Interval(every=4), predictor=predictor)


def _check(options: BenchmarkOptions) -> None:
    if options.num < 1:
        raise BadInput(f"--num must be at least 1, not {options.num}")


def _methods(options: BenchmarkOptions, facts: ModelFacts, items: list[Item]) -> list[Recipe]:
    """The methods that were asked for; all includes the plans beside the model, if made for so many steps."""
    methods = [resolve_method(name, options.cache_for(name), facts.plans) for name in options.method_names()]
    for method in methods:
        if complaint := _complaint(method, items):
            raise BadInput(complaint)
    if not options.wants_all:
        return methods
    plans = [read_recipe(facts.plans[name]) for name in sorted(facts.plans, key=lambda name: (len(name), name))]
    return [*methods, *(plan for plan in plans if not _complaint(plan, items))]


def _complaint(method: Recipe, items: list[Item]) -> str | None:
    """Why a method cannot sample one of the items, if it cannot."""
    for item in items:
        try:
            method.schedule.start(method.schedule.num_steps(item.steps))
        except ValueError as error:
            return f"{item.where}: {error}"
    return None


def _items(options: BenchmarkOptions, facts: ModelFacts) -> list[Item]:
    """The prompts, repeated with further seeds until there are enough; the demo model has some for any number."""
    defaults = defaults_for(facts, options.video)
    if options.prompts is None and options.model == "demo":
        lines = benchmark_items(options.num, defaults)
    else:
        lines = read_items(options.prompts or PROMPTS_FILE, defaults)
    for line in lines:
        facts.check_size(line.height, line.width, line.num_frames)
    repeats = -(-options.num // len(lines))
    many = [line.model_copy(update={"seed": line.seed + 1000 * r}) for r in range(repeats) for line in lines]
    return many[: options.num]


def _report(console: Console, played: int, total: int, tallies: list[Tally]) -> None:
    latest = ", ".join(f"{tally.contestant.name} {tally.seconds[-1]:.2f} s" for tally in tallies)
    console.print(f"{played}/{total}: {latest}", soft_wrap=True)
