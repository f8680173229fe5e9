"""What each setting does to fidelity: ResCa, Fig. S1 and Table S1; DuCa, Fig. 7 and Table VI."""

import statistics
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, TypedDict

from caching.recipe.recipe import RECIPES, Recipe, recipe
from caching.recipe.tokens import SelectedTokens, TrajectoryMedoids
from jobs.measure.analysis.study import Analysis, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Row(TypedDict):
    """What one value of a setting gives and costs."""

    setting: str
    value: str
    psnr_db: float
    psnr_db_min: float
    dense_steps: int
    tflops: float
    seconds: float


def variants() -> Iterator[tuple[str, str, Recipe]]:
    """What is varied, its value, and the recipe."""
    resca, duca = RECIPES["resca"], RECIPES["duca"]
    tokens, some = resca.tokens, duca.tokens
    assert isinstance(tokens, TrajectoryMedoids)
    assert isinstance(some, SelectedTokens)
    for value in (0.2, 0.5, 0.8):
        yield "ResCa: smoothing", str(value), replace(resca, tokens=replace(tokens, smoothing=value))
    yield "ResCa: clusters by", "features", replace(resca, tokens=replace(tokens, history=1))
    yield "ResCa: clusters by", "trajectory", resca
    for value in range(3, 9):
        yield "ResCa: interval N", str(value), recipe("resca", interval=value)
    for value in (8, 16, 32, 64):
        yield "ResCa: clusters K", str(value), recipe("resca", clusters=value)
    for value in (0, 1, 2):
        yield "ResCa: order O", str(value), recipe("resca", order=value)
    for value in ("implicit", "explicit"):
        yield "ResCa: update", value, recipe("resca", update=value)
    for value in range(3, 9):
        yield "DuCa: interval N", str(value), recipe("duca", interval=value)
    for value in (0.7, 0.8, 0.9, 0.95):
        yield "DuCa: ratio R", str(value), recipe("duca", ratio=value)
    for turns, name in (("all", "conservative"), ("odd", "alternating")):
        yield "DuCa: sparse steps", name, replace(duca, tokens=replace(some, turns=turns))
    yield "DuCa: sparse steps", "aggressive", replace(duca, tokens=None, feature="stack")


def analyse(study: Study) -> Analysis:
    """PSNR of final latents against full sampling, and FLOPs, one setting changed at a time."""
    rows: list[Row] = []
    for setting, value, method in variants():
        score = study.score(method)
        rows.append(
            {
                "setting": setting,
                "value": value,
                "psnr_db": statistics.mean(score.psnr_db),
                "psnr_db_min": min(score.psnr_db),
                "dense_steps": score.dense_steps,
                "tflops": score.tflops,
                "seconds": score.seconds,
            }
        )
    return Analysis(rows=rows, draw=lambda figure: _draw(figure, rows), height=8)


def _draw(figure: "Figure", rows: list[Row]) -> None:
    groups = [(setting, list(members)) for setting, members in groupby(rows, key=lambda row: row["setting"])]
    axes = figure.subplots(3, 3, sharey=True).flatten()
    for axis, (setting, members) in zip(axes, groups, strict=True):
        values = [row["value"] for row in members]
        axis.plot(values, [row["psnr_db"] for row in members], "o-", label="mean")
        axis.plot(values, [row["psnr_db_min"] for row in members], "v--", label="worst")
        cost = axis.twinx()
        cost.plot(values, [row["tflops"] for row in members], ":", color="0.6")
        cost.tick_params(colors="0.6")
        axis.set_title(setting, fontsize=9)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("PSNR of latents, dB; dotted: TFLOPs")
    axes[0].legend(fontsize=7)
