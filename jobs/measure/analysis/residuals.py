"""How alike residuals are inside clusters: ResCa, Fig. 2c to 2e."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from jobs.measure.analysis.clusters import CLUSTERINGS, INTERVAL, clusters_of, distances_within
from jobs.measure.analysis.study import Analysis, Study, residuals

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ORDERS = (0, 1, 2, 3)
QUANTILES = (0.02, 0.1, 0.5, 0.9, 0.98)
BINS = 60
MOST_VALUES = 1_000_000  # that quantiles are taken of


def analyse(study: Study) -> Analysis:
    """Distances between the residuals of tokens of one cluster, by order and by clustering.

    Distances of an order are in units of the mean distance between any two tokens.
    """
    pooled = {key: torch.cat(parts) for key, parts in _distances(study).items()}
    units = {order: pooled["none", order].mean() for order in ORDERS}
    scaled = {key: values / units[key[1]] for key, values in pooled.items()}
    rows = [_row(clustering, order, values) for (clustering, order), values in scaled.items()]
    successive = _successive(study)
    return Analysis(rows=rows, draw=lambda figure: _draw(figure, scaled, successive))


def _distances(study: Study) -> dict[tuple[str, int], list[Tensor]]:
    """Pooled over prompts and over the sparse steps after each dense one."""
    found: dict[tuple[str, int], list[Tensor]] = {
        (clustering, order): [] for clustering in CLUSTERINGS for order in ORDERS
    }
    for prompt in range(study.num_prompts):
        features = study.features(prompt)
        for step in range(INTERVAL, study.steps - INTERVAL, INTERVAL):
            for clustering in CLUSTERINGS:
                clusters = clusters_of(features, step, clustering)
                for order in ORDERS:
                    values = residuals(features, order)[step + INTERVAL // 2 - order]
                    found[clustering, order].append(distances_within(values, clusters))
    return found


def _successive(study: Study) -> tuple[Tensor, Tensor]:
    """Distances of first-order residuals in one step and in the next, inside clusters by trajectory."""
    features = study.features(0)
    step = study.steps // 2 // INTERVAL * INTERVAL
    clusters = clusters_of(features, step, "trajectory")
    first = residuals(features, 1)
    now, following = (distances_within(first[step + later], clusters) for later in (0, 1))
    keep = torch.randperm(len(now), generator=torch.Generator().manual_seed(0))[:4000]
    return now[keep], following[keep]


def _row(clustering: str, order: int, values: Tensor) -> dict[str, str | float]:
    mean, pairs = float(values.mean()), len(values)
    return {"clustering": clustering, "order": order, "mean": mean, **_quantiles(values), "pairs": pairs}


def _quantiles(values: Tensor) -> dict[str, float]:
    """By name: `q02` is the value that 2% are below."""
    thinned = values[:: len(values) // MOST_VALUES + 1]
    points = thinned.quantile(torch.tensor(QUANTILES))
    return {f"q{round(100 * place):02d}": float(point) for place, point in zip(QUANTILES, points, strict=True)}


def _draw(figure: "Figure", scaled: dict[tuple[str, int], Tensor], successive: tuple[Tensor, Tensor]) -> None:
    left, middle, right = figure.subplots(1, 3)
    for clustering in CLUSTERINGS:
        values = scaled[clustering, 1]
        counts = torch.histc(values, BINS, 0, 3)
        left.plot(torch.linspace(0, 3, BINS), counts / counts.sum(), label=clustering)
    left.set(xlabel="distance of first-order residuals", ylabel="frequency")
    left.legend(title="clusters by")
    boxes = [_quantiles(scaled["trajectory", order]) for order in ORDERS]
    middle.bxp(
        [
            {"whislo": box["q02"], "q1": box["q10"], "med": box["q50"], "q3": box["q90"], "whishi": box["q98"]}
            for box in boxes
        ],
        positions=list(ORDERS),
        showfliers=False,
    )
    middle.set(xlabel="order of the residual", ylabel="distance within clusters by trajectory")
    right.plot(*successive, ".", markersize=2, alpha=0.4)
    right.set(xlabel="distance in a step", ylabel="distance in the next")
