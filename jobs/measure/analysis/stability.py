"""Why an implicit update: amplification on the linear test equation; ResCa, B.8, Eq. S11 to S19."""

from typing import TYPE_CHECKING, TypedDict

import torch

from caching.proxies.simulation import taylor_factors
from jobs.measure.analysis.study import Analysis, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS = torch.linspace(-6, 0, 121, dtype=torch.float64)  # z = h lambda


class Gains(TypedDict):
    """What a step makes of 1."""

    z: float
    explicit: float
    implicit: float


def explicit_gain(z: float) -> float:
    """What one explicit step of order 1 makes of `y' = lambda y`, `y = 1`, by the code that renders."""
    [weight] = taylor_factors(1.0, 1, implicit=False)
    return 1 + weight * z


def implicit_gain(z: float) -> float:
    """The same by the implicit update: it is linear in the new derivative, and solved for the new value."""
    [weight] = taylor_factors(1.0, 1, implicit=True)
    return 1 / (1 - weight * z)


def analyse(study: Study) -> Analysis:
    """Amplification factors of both updates; a step is stable where they stay within 1."""
    rows: list[Gains] = [
        {"z": float(z), "explicit": explicit_gain(float(z)), "implicit": implicit_gain(float(z))} for z in STEPS
    ]
    return Analysis(rows=rows, draw=lambda figure: _draw(figure, rows))


def _draw(figure: "Figure", rows: list[Gains]) -> None:
    axis = figure.subplots()
    for kind in ("explicit", "implicit"):
        axis.plot([row["z"] for row in rows], [abs(row[kind]) for row in rows], label=kind)
    axis.axhline(1, color="grey", linewidth=0.7)
    axis.set(xlabel="h lambda", ylabel="amplification of a step")
    axis.legend()
