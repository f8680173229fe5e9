"""Which tokens are worth computing, by five scores, their highest and their lowest: DuCa, Table I."""

import math
import statistics
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, TypedDict

from caching.recipe.recipe import RECIPES, Recipe
from caching.recipe.schedule import Interval
from caching.recipe.tokens import SCORES, SelectedTokens
from jobs.measure.analysis.study import Analysis, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INTERVAL = 4  # as in the table; a tenth of the tokens is computed in every sparse step
EXTREMES = ("max", "min")


class Row(TypedDict):
    """What tokens with the highest or lowest scores give; gains are over random ones, prompt by prompt."""

    score: str
    extreme: str
    psnr_db: float
    psnr_db_min: float
    gain_db: float
    gain_error_db: float  # the standard error of the mean
    tflops: float
    seconds: float


def variants() -> Iterator[tuple[str, str, Recipe]]:
    """The score, which end of it, and the recipe; tokens are chosen among all, not range by range."""
    base = replace(RECIPES["toca"], schedule=Interval(every=INTERVAL))
    for score in SCORES:
        for extreme in EXTREMES:
            if score != "random" or extreme == "max":
                tokens = SelectedTokens(shards=1).with_option("score", f"{score}:{extreme}")
                yield score, extreme, replace(base, tokens=tokens)


def analyse(study: Study) -> Analysis:
    """PSNR of final latents against full sampling."""
    found = [(score, extreme, study.score(method)) for score, extreme, method in variants()]
    random = next(result for score, _, result in found if score == "random")
    rows: list[Row] = []
    for score, extreme, result in found:
        gains = [mine - other for mine, other in zip(result.psnr_db, random.psnr_db, strict=True)]
        rows.append(
            {
                "score": score,
                "extreme": extreme,
                "psnr_db": statistics.mean(result.psnr_db),
                "psnr_db_min": min(result.psnr_db),
                "gain_db": statistics.mean(gains),
                "gain_error_db": statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.nan,
                "tflops": result.tflops,
                "seconds": result.seconds,
            }
        )
    return Analysis(rows=rows, draw=lambda figure: _draw(figure, rows))


def _draw(figure: "Figure", rows: list[Row]) -> None:
    axis = figure.subplots()
    for number, extreme in enumerate(EXTREMES):
        of_kind = [row for row in rows if row["extreme"] == extreme]
        places = [SCORES.index(row["score"]) + 0.4 * number - 0.2 for row in of_kind]
        heights = [row["gain_db"] for row in of_kind]
        axis.bar(places, heights, 0.4, yerr=[row["gain_error_db"] for row in of_kind], label=extreme)
    axis.set_xticks(range(len(SCORES)), SCORES)
    axis.axhline(0, color="grey", linewidth=0.7)
    axis.set_ylabel("PSNR of latents above that of random tokens, dB")
    axis.legend(title="tokens with the")
