"""The file that a plan is kept in."""

from dataclasses import asdict
from pathlib import Path

import yaml

from caching.recipe.recipe import Multistep, Recipe
from jobs.request.tuned import BLOCK, Tuned
from jobs.store.files import write_text


def write_plan(out: Path, method: Recipe, tuned: Tuned) -> None:
    """A recipe file, with what it was made for and is worth."""
    settings = asdict(method)
    if "dense" in settings["schedule"]:
        settings["schedule"]["dense"] = list(settings["schedule"]["dense"])
    if isinstance(method.predictor, Multistep):
        settings["predictor"]["weights"] = [[round(weight, 6) for weight in row] for row in method.predictor.weights]
    heading = f"# tuned on {tuned.calibrated_on} prompts with model {tuned.model}: {tuned.promise}\n"
    text = yaml.safe_dump({**settings, BLOCK: tuned.model_dump()}, sort_keys=False, default_flow_style=None, width=110)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, heading + text)
