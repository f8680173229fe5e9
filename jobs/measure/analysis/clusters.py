"""Clusters of tokens, by their features in one step or by their trajectory so far.

Legend: T steps, N tokens, D hidden width.
"""

import torch
from torch import Tensor

from caching.medoids import k_medoids
from caching.proxies.trajectory import Trajectory

NUM_CLUSTERS = 16
INTERVAL = 6
CLUSTERINGS = ("none", "features", "trajectory")


def clusters_of(features: Tensor, step: int, clustering: str) -> Tensor:
    """The cluster of each token `[N]` at a dense step, from features `[T, N, D]` of the dense steps up to it."""
    if clustering == "none":
        return torch.zeros(features.shape[1], dtype=torch.long)
    everyone = torch.arange(features.shape[1], device=features.device)[None]
    valid = torch.ones_like(everyone, dtype=torch.bool)
    trajectory = Trajectory(everyone, valid, sketch=None, history=1 if clustering == "features" else 64)
    for dense in range(0, step + 1, INTERVAL):
        trajectory.observe(features[dense])
    return k_medoids(trajectory.vectors(), valid, min(NUM_CLUSTERS, features.shape[1]))[1][0]


def distances_within(values: Tensor, clusters: Tensor) -> Tensor:
    """L2 distances of all pairs of tokens of one cluster, of values `[N, D]` (ResCa, Eq. S3)."""
    same = (clusters[:, None] == clusters[None]).triu(1)
    return torch.cdist(values, values)[same]
