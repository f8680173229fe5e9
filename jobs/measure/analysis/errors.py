"""How the latents stray from full sampling, step by step: DuCa, Fig. 2."""

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from caching.recipe.recipe import RECIPES, Recipe
from caching.recipe.schedule import Interval
from caching.recipe.tokens import SelectedTokens
from jobs.measure.analysis.study import Analysis, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def compared() -> dict[str, Recipe]:
    """Methods with the same dense steps."""
    every, duca = Interval(every=6), RECIPES["duca"]
    conservative = replace(duca, schedule=every, tokens=SelectedTokens())
    return {
        "aggressive": replace(duca, schedule=every, tokens=None, feature="stack"),
        "conservative": conservative,
        "duca": replace(duca, schedule=every),
        "taylorseer": RECIPES["taylorseer"],
        "resca": RECIPES["resca"],
        "auto": replace(RECIPES["auto"], schedule=every),
    }


def analyse(study: Study) -> Analysis:
    """The relative L2 error of the latents before each step, mean of all prompts."""
    totals: dict[str, Tensor] = {}
    for prompt in range(study.num_prompts):
        full = study.trajectory(RECIPES["full"], prompt)
        for name, method in compared().items():
            path = study.trajectory(method, prompt)
            error = (path - full).flatten(1).norm(dim=1) / full.flatten(1).norm(dim=1)
            totals[name] = totals.get(name, torch.zeros(len(error))) + error / study.num_prompts
    rows = [
        {"method": name, "step": step, "error": float(error[step])}
        for name, error in totals.items()
        for step in range(len(error))
    ]
    return Analysis(rows=rows, draw=lambda figure: _draw(figure, totals))


def _draw(figure: "Figure", totals: dict[str, Tensor]) -> None:
    axis = figure.subplots()
    for name, error in totals.items():
        axis.semilogy(error.where(error > 0, torch.nan), label=name)  # none before the first sparse step
    axis.set(xlabel="step", ylabel="relative error of the latents")
    axis.grid(alpha=0.3)
    axis.legend()
