"""What trajectory clustering (TETC) costs as videos grow: seconds, memory, and the power of tokens that they follow."""

import statistics
import time
from typing import TYPE_CHECKING, NotRequired, TypedDict

import torch

from caching.medoids import k_medoids
from caching.proxies.proxies import FIRST_ITERATIONS
from caching.proxies.trajectory import Trajectory
from caching.recipe.tokens import TrajectoryMedoids
from jobs.measure.analysis.study import Analysis, Study
from jobs.measure.fidelity import peak_memory

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST = 118_800  # 720 x 1280 pixels, 129 frames
WIDTH = 3072  # of HunyuanVideo's hidden states
CLUSTERS = 32
PARTS = (8, 4, 2, 1)


class Clustering(TypedDict):
    """What one size costs."""

    tokens: int
    seconds: float
    extra_bytes: int
    features_bytes: int
    exponent: NotRequired[float]  # of all sizes together


def analyse(study: Study | None = None) -> Analysis:
    """Cluster random features of HunyuanVideo's width, up to its largest video; no model is used."""
    rows = [_measure(LARGEST // part) for part in PARTS]
    exponent = fit_exponent([(row["tokens"], row["seconds"]) for row in rows])
    for row in rows:
        row["exponent"] = round(exponent, 3)
    return Analysis(rows=rows, draw=lambda figure: _draw(figure, rows, exponent))


def fit_exponent(points: list[tuple[float, float]]) -> float:
    """The power by which the second number grows with the first (slope of a line through the logarithms)."""
    x, y = torch.tensor(points, dtype=torch.float64).log().T
    x, y = x - x.mean(), y - y.mean()
    return float((x @ y) / (x @ x))


def cluster(features: torch.Tensor, settings: TrajectoryMedoids) -> torch.Tensor:
    """What one process does for all shards at the dense steps of a video: sketch, accumulate, cluster."""
    index = torch.arange(len(features)).view(settings.shards, -1)
    valid = torch.ones_like(index, dtype=torch.bool)
    trajectory = Trajectory(
        index, valid, smoothing=settings.smoothing, sketch=settings.sketch, history=settings.history
    )
    for _ in range(settings.history):
        trajectory.observe(features)
    return k_medoids(
        trajectory.vectors(), valid, settings.clusters // settings.shards, num_iterations=FIRST_ITERATIONS
    )[0]


def _measure(tokens: int) -> Clustering:
    """Median seconds of three, and the memory beyond the features, which the model has made anyway."""
    settings = TrajectoryMedoids(clusters=CLUSTERS)
    features = torch.randn(tokens // settings.shards * settings.shards, WIDTH, dtype=torch.bfloat16)
    with peak_memory() as before:
        pass
    seconds = []
    with peak_memory() as peak:
        for _ in range(3):
            started = time.perf_counter()
            cluster(features, settings)
            seconds.append(time.perf_counter() - started)
    return {
        "tokens": len(features),
        "seconds": round(statistics.median(seconds), 3),
        "extra_bytes": peak.bytes - before.bytes,
        "features_bytes": features.nbytes,
    }


def _draw(figure: "Figure", rows: list[Clustering], exponent: float) -> None:
    axis = figure.subplots()
    axis.loglog([row["tokens"] for row in rows], [row["seconds"] for row in rows], "o-")
    axis.set_xlabel("tokens")
    axis.set_ylabel(f"seconds of {TrajectoryMedoids().history} dense steps' sketches and one clustering")
    axis.set_title(f"time grows with the power {exponent:.2f} of tokens")
    axis.grid(alpha=0.3, which="both")
