"""K-medoids under an inner-product similarity (TETC, step 3), for many shards at once.

Legend: S shards, N tokens of a shard (padded), K clusters of a shard, d vector dimensions.
"""

import torch
from torch import Tensor

NEVER = float("-inf")
SAMPLE = 1024  # tokens of a shard among which the first medoids are sought
EXCHANGES = 1  # tried for each medoid
TIE = 1e-4  # tokens that are nearly as good are: two tokens of one cluster are equally like it, whatever rounding says


def k_medoids(
    vectors: Tensor, valid: Tensor, num_clusters: int, *, start: Tensor | None = None, num_iterations: int = 5
) -> tuple[Tensor, Tensor]:
    """Cluster each shard's tokens around K of them.

    The token of a cluster with the largest summed similarity to it is the one with the largest inner product with
    the cluster's sum, so a medoid update costs O(N d) and is exact. Such updates find the nearest local optimum only;
    a good one to begin with comes from exchanging medoids in a sample (as in PAM). No control flow depends on data: the
    function runs on the meta device and gives the same result wherever a shard lives.

    Args:
        vectors: `[S, N, d]`, with similarity `S(i, j) = <v_i, v_j>`.
        valid: `[S, N]`, False for padding, which comes last; each shard has at least K valid tokens.
        start: the medoids `[S, K]` to begin with; by default those of a sample.

    Returns:
        The medoids `[S, K]` (token indices inside the shard) and each token's cluster `[S, N]`.
    """
    medoids = _begin(vectors, valid, num_clusters) if start is None else start
    for _ in range(num_iterations):
        medoids = _update(vectors, valid, medoids, _assign(vectors, medoids))
    return medoids, _assign(vectors, medoids)


def _begin(vectors: Tensor, valid: Tensor, num_clusters: int) -> Tensor:
    """Medoids of at most SAMPLE tokens at even distances: far from each other at first, then exchanged."""
    size = min(vectors.shape[1], max(SAMPLE, 2 * num_clusters))
    places = torch.arange(size, device=vectors.device)
    counts = valid.sum(1, keepdim=True)
    sample = torch.where(counts >= size, places * counts // size, places.expand(len(counts), -1))
    vectors, valid = _gather(vectors, sample), valid.gather(1, sample)
    medoids = _spread(vectors, valid, num_clusters)
    similarity = (vectors @ vectors.transpose(1, 2)).masked_fill(~valid[:, None], NEVER)
    for _ in range(EXCHANGES * num_clusters):
        medoids = _exchange(similarity, valid, medoids)
    return sample.gather(1, medoids)


def _exchange(similarity: Tensor, valid: Tensor, medoids: Tensor) -> Tensor:
    """Replace one medoid of each shard by the token that gains most, if any does (a swap of FastPAM).

    Args:
        similarity: of all tokens of a sample `[S, n, n]`; minus infinity to padding.
    """
    num_clusters = medoids.shape[1]
    to_medoids = similarity.gather(2, medoids[:, None].expand(-1, similarity.shape[1], -1))
    best, second = _two_largest(to_medoids)
    clusters = _first_largest(to_medoids, dim=-1)
    member = torch.nn.functional.one_hot(clusters, num_clusters).to(similarity.dtype) * valid[..., None]
    # What each token i gains if c becomes a further medoid, and what it loses if its own is taken away for c.
    gain = (similarity - best[..., None]).clamp_min(0) * valid[..., None]
    after = torch.maximum(similarity, second[..., None]) - best[..., None] - gain
    change = gain.sum(1)[..., None] + (after * valid[..., None]).nan_to_num(neginf=0.0).transpose(1, 2) @ member
    change = change.masked_fill(~valid[..., None], NEVER).flatten(1)
    most, place = change.amax(1), _first_largest(change, dim=1)
    newcomer, leaver = place // num_clusters, place % num_clusters
    exchanged = medoids.scatter(1, leaver[:, None], newcomer[:, None])
    return torch.where(most[:, None] > TIE, exchanged, medoids)


def _two_largest(values: Tensor) -> tuple[Tensor, Tensor]:
    """The largest and the second largest of the last dimension; of one alone, itself and minus infinity."""
    if values.shape[-1] == 1:
        return values[..., 0], torch.full_like(values[..., 0], NEVER)
    first, second = values.topk(2, dim=-1).values.unbind(-1)
    return first, second


def _spread(vectors: Tensor, valid: Tensor, num_clusters: int) -> Tensor:
    """Farthest-first start: the most central token, then again and again the one least like any chosen so far."""
    centre = (vectors * valid[..., None]).sum(1, keepdim=True)
    score = (vectors * centre).sum(-1).masked_fill(~valid, NEVER)
    chosen = [_first_largest(score, dim=-1)]
    nearest = torch.full_like(score, NEVER)
    taken = ~valid
    for _ in range(num_clusters - 1):
        newest = _gather(vectors, chosen[-1][:, None])
        taken = taken.scatter(1, chosen[-1][:, None], True)
        nearest = torch.maximum(nearest, (vectors * newest).sum(-1))
        chosen.append(_first_largest((-nearest).masked_fill(taken, NEVER), dim=-1))
    return torch.stack(chosen, dim=1)


def _assign(vectors: Tensor, medoids: Tensor) -> Tensor:
    """The most similar medoid of each token; a medoid always belongs to itself."""
    clusters = _first_largest(vectors @ _gather(vectors, medoids).transpose(1, 2), dim=-1)
    own = torch.arange(medoids.shape[1], device=medoids.device).expand_as(medoids)
    return clusters.scatter(1, medoids, own)


def _update(vectors: Tensor, valid: Tensor, medoids: Tensor, clusters: Tensor) -> Tensor:
    """The member of each cluster that is most similar to its whole cluster."""
    member = torch.nn.functional.one_hot(clusters, medoids.shape[1]).bool() & valid[..., None]
    sums = member.to(vectors.dtype).transpose(1, 2) @ vectors
    return _first_largest((vectors @ sums.transpose(1, 2)).masked_fill(~member, NEVER), dim=1)


def _first_largest(values: Tensor, dim: int) -> Tensor:
    """The first of the largest values, so that ranks whose numbers are rounded otherwise choose the same."""
    largest = values.amax(dim, keepdim=True)
    return (values >= largest - TIE * largest.abs()).to(torch.uint8).argmax(dim)


def _gather(vectors: Tensor, index: Tensor) -> Tensor:
    return vectors.gather(1, index[..., None].expand(-1, -1, vectors.shape[-1]))
