"""Denoising trajectories of tokens in a space that can be seen: ResCa, Eq. S1 and S2, Fig. 2a, 2b, S3 and S4."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from caching.recipe.recipe import RECIPES
from jobs.measure.analysis.clusters import INTERVAL, clusters_of
from jobs.measure.analysis.study import Analysis, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COMPARED = ("full", "tomesd", "fora", "taylorseer", "resca")
SHOWN_CLUSTERS, SHOWN_TOKENS = 3, 4
Row = dict[str, str | float | None]


def project(trajectories: Tensor) -> tuple[Tensor, float]:
    """Trajectories `[T, n, D]` along their main direction u and two principal ones, and the variance that is kept.

    Coordinates `[T, n, 3]`: u leads from the mean start to the mean end; v1 and v2 are those of a principal component
    analysis of what is orthogonal to it.
    """
    centred = trajectories - trajectories[:1]
    main = torch.nn.functional.normalize(centred[-1].mean(0), dim=0)
    along = centred @ main
    rest = centred - along[..., None] * main
    _, _, directions = torch.pca_lowrank(rest.flatten(0, 1), q=2, center=False)
    coordinates = torch.cat([along[..., None], rest @ directions], dim=-1)
    return coordinates, float(coordinates.square().sum() / centred.square().sum())


def analyse(study: Study) -> Analysis:
    """Tokens of three clusters, made by features and by trajectory; and two tokens under several methods."""
    features = study.features(0)
    step = max(INTERVAL, study.steps // 2 // INTERVAL * INTERVAL)
    clouds = {kind: _sample(clusters_of(features, step, kind)) for kind in ("features", "trajectory")}
    paths = {kind: project(features[:, tokens]) for kind, (tokens, _) in clouds.items()}
    compared = _compared(study)
    rows = [row for kind, (path, kept) in paths.items() for row in _rows(kind, *clouds[kind], path, kept)]
    pair = torch.arange(2)
    rows += [row for name, path in compared.items() for row in _rows(name, pair, pair, path, None)]
    labels = {kind: labels for kind, (_, labels) in clouds.items()}
    return Analysis(rows=rows, draw=lambda figure: _draw(figure, paths, labels, compared), height=8)


def _sample(clusters: Tensor) -> tuple[Tensor, Tensor]:
    """Some tokens of the largest clusters, and the cluster of each."""
    largest = clusters.bincount().topk(min(SHOWN_CLUSTERS, int(clusters.max()) + 1)).indices
    tokens = [(clusters == cluster).nonzero()[:, 0] for cluster in largest]
    spread = [of[torch.linspace(0, len(of) - 1, min(SHOWN_TOKENS, len(of))).long()] for of in tokens]
    labels = [torch.full((len(of),), number) for number, of in enumerate(spread)]
    return torch.cat(spread), torch.cat(labels)


def _compared(study: Study) -> dict[str, Tensor]:
    """The latents of the two tokens that differ most between methods, in the coordinates of full sampling."""
    paths = {name: study.trajectory(RECIPES[name], 0) for name in COMPARED}
    error = sum((path[-1] - paths["full"][-1]).norm(dim=-1) for path in paths.values())
    tokens = torch.as_tensor(error).topk(2).indices
    joint, _ = project(torch.cat([path[:, tokens] for path in paths.values()], dim=1))
    return {name: joint[:, 2 * number : 2 * number + 2] for number, name in enumerate(paths)}


def _rows(kind: str, tokens: Tensor, labels: Tensor, path: Tensor, kept: float | None) -> list[Row]:
    u, v1, v2 = (path[..., place].tolist() for place in range(3))
    return [
        {
            "u": u[step][number],
            "v1": v1[step][number],
            "v2": v2[step][number],
            "picture": kind,
            "token": int(tokens[number]),
            "cluster": int(labels[number]),
            "step": step,
            "variance_kept": kept,
        }
        for number in range(len(tokens))
        for step in range(len(path))
    ]


def _draw(
    figure: "Figure", paths: dict[str, tuple[Tensor, float]], labels: dict[str, Tensor], compared: dict[str, Tensor]
) -> None:
    for place, (kind, (path, kept)) in enumerate(paths.items()):
        solid = figure.add_subplot(2, 3, place + 1, projection="3d")
        flat = figure.add_subplot(2, 3, place + 4)
        for number, label in enumerate(labels[kind].tolist()):
            solid.plot(*path[:, number].T, color=f"C{label}", linewidth=0.8)
            flat.plot(path[:, number, 0], path[:, number, 1], color=f"C{label}", linewidth=0.8)
        solid.set_title(f"clusters by {kind} ({kept:.0%} of the variance)", fontsize=9)
        flat.set(xlabel="u", ylabel="v1")
    for token, place in ((0, 3), (1, 6)):
        axis = figure.add_subplot(2, 3, place)
        for name, path in compared.items():
            axis.plot(path[:, token, 0], path[:, token, 1], label=name, linewidth=2 if name == "full" else 1)
        axis.set(xlabel="u", ylabel="v1", title=f"latents of a token, {token + 1} of 2")
        axis.legend(fontsize=7)
