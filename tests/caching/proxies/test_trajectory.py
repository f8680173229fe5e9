import torch
from torch.nn import functional as F
from torch.testing import assert_close

from caching.proxies.trajectory import Trajectory


def accumulate(steps, smoothing):
    """The paper's definition: pairwise cosine similarity, exponentially averaged over dense steps."""
    similarity = None
    for features in steps:
        direction = F.normalize(features, dim=-1)
        current = direction @ direction.T
        similarity = current if similarity is None else smoothing * current + (1 - smoothing) * similarity
    return similarity


def features_of(num_steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(40, 96, generator=generator) for _ in range(num_steps)]


def test_inner_products_are_the_accumulated_similarities_of_the_full_matrix():
    for smoothing in (0.3, 0.5, 0.9):
        steps = features_of(4)
        trajectory = Trajectory(smoothing=smoothing, sketch=None, history=4)
        for features in steps:
            trajectory.observe(features)
        vectors = trajectory.vectors()
        assert_close(vectors @ vectors.T, accumulate(steps, smoothing))


def test_sketch_approximates_the_similarities():
    steps = [features @ torch.randn(96, 96).abs() for features in features_of(3)]
    exact, sketched = Trajectory(sketch=None), Trajectory(sketch=32)
    for features in steps:
        exact.observe(features)
        sketched.observe(features)
    similarities = [trajectory.vectors() @ trajectory.vectors().T for trajectory in (exact, sketched)]
    stacked = torch.stack([similarity.flatten() for similarity in similarities])
    assert torch.corrcoef(stacked)[0, 1] > 0.9
    assert sketched.vectors().shape == (40, 3 * 32)


def test_history_is_bounded():
    trajectory = Trajectory(sketch=8, history=2)
    for features in features_of(5):
        trajectory.observe(features)
    assert trajectory.vectors().shape == (40, 16)
