"""The fewest dense steps that reach a fidelity, or the best places for a number of them, found by measuring.

Candidates are sampled to their end and compared on latents, without decoding; what is promised is checked on videos.
"""

import math
import statistics
from dataclasses import asdict

import yaml
from rich.console import Console

from jobs.errors import BadInput
from jobs.measure.contest import Contest
from jobs.measure.judge import Judge, calibration_items
from jobs.measure.search import Candidate, Search
from jobs.models.directory import transformers_of
from jobs.models.facts import read_facts
from jobs.options.measure import TuneOptions
from jobs.store.files import check_file, write_text


def tune(options: TuneOptions, console: Console) -> None:
    """Search and write the recipe. Raises BadInput before anything is loaded."""
    target = _target(options)
    check_file(options.out, "--out")
    facts = read_facts(options.model, variant=options.video.variant)
    if len(transformers_of(facts.directory, facts.family)) > 1:
        raise BadInput(f"resca tune fits weights of one transformer, and {facts.name} has two that take turns")
    items = calibration_items(options, facts)
    if options.budget_dense and options.budget_dense > items[0].steps:
        raise BadInput(f"--budget-dense {options.budget_dense} is more than the {items[0].steps} steps of a video")
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
    settings["predictor"]["weights"] = [[round(weight, 6) for weight in row] for row in found.weights]
    options.out.parent.mkdir(parents=True, exist_ok=True)
    write_text(options.out, heading + yaml.safe_dump(settings, sort_keys=False, default_flow_style=None, width=110))
