"""K-medoids under an inner-product similarity (TETC, step 3), for many shards at once.

Legend: S shards, N tokens of a shard (padded), K clusters of a shard, d vector dimensions.
"""

import torch
from torch import Tensor

NEVER = float("-inf")


def k_medoids(
    vectors: Tensor, valid: Tensor, num_clusters: int, *, start: Tensor | None = None, num_iterations: int = 5
) -> tuple[Tensor, Tensor]:
    """Cluster each shard's tokens around K of them.

    The token of a cluster with the largest summed similarity to it is the one with the largest inner product with
    the cluster's sum, so a medoid update costs O(N d) and is exact. No control flow depends on data: the function
    runs on the meta device and gives the same result wherever a shard lives.

    Args:
        vectors: `[S, N, d]`, with similarity `S(i, j) = <v_i, v_j>`.
        valid: `[S, N]`, False for padding; each shard has at least K valid tokens.
        start: the medoids `[S, K]` to begin with; by default tokens far from each other.

    Returns:
        The medoids `[S, K]` (token indices inside the shard) and each token's cluster `[S, N]`.
    """
    medoids = _spread(vectors, valid, num_clusters) if start is None else start
    for _ in range(num_iterations):
        medoids = _update(vectors, valid, medoids, _assign(vectors, medoids))
    return medoids, _assign(vectors, medoids)


def _spread(vectors: Tensor, valid: Tensor, num_clusters: int) -> Tensor:
    """Farthest-first start: the most central token, then again and again the one least like any chosen so far."""
    centre = (vectors * valid[..., None]).sum(1, keepdim=True)
    score = (vectors * centre).sum(-1).masked_fill(~valid, NEVER)
    chosen = [score.argmax(-1)]
    nearest = torch.full_like(score, NEVER)
    taken = ~valid
    for _ in range(num_clusters - 1):
        newest = _gather(vectors, chosen[-1][:, None])
        taken = taken.scatter(1, chosen[-1][:, None], True)
        nearest = torch.maximum(nearest, (vectors * newest).sum(-1))
        chosen.append((-nearest).masked_fill(taken, NEVER).argmax(-1))
    return torch.stack(chosen, dim=1)


def _assign(vectors: Tensor, medoids: Tensor) -> Tensor:
    """The most similar medoid of each token; a medoid always belongs to itself."""
    clusters = (vectors @ _gather(vectors, medoids).transpose(1, 2)).argmax(-1)
    own = torch.arange(medoids.shape[1], device=medoids.device).expand_as(medoids)
    return clusters.scatter(1, medoids, own)


def _update(vectors: Tensor, valid: Tensor, medoids: Tensor, clusters: Tensor) -> Tensor:
    """The member of each cluster that is most similar to its whole cluster."""
    member = torch.nn.functional.one_hot(clusters, medoids.shape[1]).bool() & valid[..., None]
    sums = member.to(vectors.dtype).transpose(1, 2) @ vectors
    return (vectors @ sums.transpose(1, 2)).masked_fill(~member, NEVER).argmax(1)


def _gather(vectors: Tensor, index: Tensor) -> Tensor:
    return vectors.gather(1, index[..., None].expand(-1, -1, vectors.shape[-1]))
