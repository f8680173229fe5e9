import torch
from torch.nn import functional as F
from torch.testing import assert_close

from caching.medoids import k_medoids
from caching.proxies.trajectory import Trajectory


def accumulate(steps, smoothing):
    """The paper's definition: pairwise cosine similarity, exponentially averaged over dense steps."""
    similarity = None
    for features in steps:
        direction = F.normalize(features, dim=-1)
        current = direction @ direction.T
        similarity = current if similarity is None else smoothing * current + (1 - smoothing) * similarity
    return similarity


def one_shard(number: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(number)[None], torch.ones(1, number, dtype=torch.bool)


def features_of(num_steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(40, 96, generator=generator) for _ in range(num_steps)]


def test_inner_products_are_the_accumulated_similarities_of_the_full_matrix():
    for smoothing in (0.3, 0.5, 0.9):
        steps = features_of(4)
        trajectory = Trajectory(*one_shard(), smoothing=smoothing, sketch=None, history=4)
        for features in steps:
            trajectory.observe(features)
        [vectors] = trajectory.vectors()
        assert_close(vectors @ vectors.T, accumulate(steps, smoothing))


def smooth_features(num_steps, num_tokens=600, width=256):
    """Tokens of a few kinds, each a little apart, that drift from step to step."""
    generator = torch.Generator().manual_seed(1)
    kinds = torch.randn(24, width, generator=generator)
    own = kinds[torch.randint(24, (num_tokens,), generator=generator)]
    own = own + 0.5 * torch.randn(num_tokens, width, generator=generator)
    return [own + 0.3 * step * torch.randn(width, generator=generator) for step in range(num_steps)]


def test_what_is_kept_of_features_finds_clusters_as_tight_as_all_of_them():
    """The mean similarity of tokens to their medoids is within 1% of exact clustering."""
    shard, steps = one_shard(600), smooth_features(3)
    exact, sketched = Trajectory(*shard, sketch=None), Trajectory(*shard, sketch=32)
    for features in steps:
        exact.observe(features)
        sketched.observe(features)
    assert sketched.vectors().shape == (1, 600, 3 * 32)
    [vectors] = exact.vectors()

    def tightness(trajectory):
        medoids, clusters = k_medoids(trajectory.vectors(), shard[1], 12)
        return float((vectors * vectors[medoids[0][clusters[0]]]).sum(-1).mean())

    assert tightness(sketched) > 0.99 * tightness(exact)


def test_a_shard_does_not_depend_on_the_others_nor_on_padding():
    features = smooth_features(1, num_tokens=41, width=64)[0]
    index = torch.stack([torch.arange(21), torch.tensor([*range(21, 41), 40])])
    valid = torch.ones(2, 21, dtype=torch.bool)
    valid[1, 20] = False
    both, second = Trajectory(index, valid, sketch=8), Trajectory(torch.arange(20)[None], valid[:1, :20], sketch=8)
    both.observe(features)
    second.observe(features[21:])
    expected, vectors = second.vectors()[0], both.vectors()[1, :20]
    assert_close(vectors @ vectors.T, expected @ expected.T)


def test_history_is_bounded():
    trajectory = Trajectory(*one_shard(), sketch=8, history=2)
    for features in features_of(5):
        trajectory.observe(features)
    assert trajectory.vectors().shape == (1, 40, 16)
