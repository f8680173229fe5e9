import kmedoids
import torch

from caching.medoids import k_medoids
from caching.proxies.trajectory import Trajectory


def blobs(num_shards=3, num_clusters=4, per_cluster=6):
    """Tight groups of unit vectors around orthogonal directions, in shuffled order."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(num_clusters).repeat(per_cluster)
    vectors = torch.eye(8)[labels] + 0.05 * torch.randn(num_shards, len(labels), 8, generator=generator)
    return torch.nn.functional.normalize(vectors, dim=-1), labels


def test_separate_groups_become_the_clusters():
    vectors, labels = blobs()
    medoids, clusters = k_medoids(vectors, torch.ones(vectors.shape[:2], dtype=torch.bool), 4)
    for shard in range(len(vectors)):
        assert sorted(labels[medoids[shard]].tolist()) == [0, 1, 2, 3]
        assert torch.equal(labels[medoids[shard]][clusters[shard]], labels)


def test_a_medoid_is_the_member_most_similar_to_its_cluster():
    vectors, _ = blobs(num_shards=1)
    medoids, clusters = k_medoids(vectors, torch.ones(1, 24, dtype=torch.bool), 4)
    similarity = vectors[0] @ vectors[0].T
    for cluster, medoid in enumerate(medoids[0].tolist()):
        members = (clusters[0] == cluster).nonzero()[:, 0]
        best = members[similarity[members][:, members].sum(1).argmax()]
        assert medoid == best


def test_padding_is_never_chosen():
    vectors, _ = blobs(num_shards=2)
    valid = torch.ones(2, 24, dtype=torch.bool)
    valid[1, 9:] = False
    medoids, _ = k_medoids(vectors, valid, 4)
    assert (medoids[1] < 9).all()


def test_every_token_can_be_its_own_cluster():
    vectors, _ = blobs(num_shards=1)
    medoids, clusters = k_medoids(vectors, torch.ones(1, 24, dtype=torch.bool), 24)
    assert sorted(medoids[0].tolist()) == list(range(24))
    assert torch.equal(medoids[0][clusters[0]], torch.arange(24))


def test_clustering_runs_on_the_meta_device():
    vectors = torch.empty(2, 10, 4, device="meta")
    medoids, clusters = k_medoids(vectors, torch.ones(2, 10, dtype=torch.bool, device="meta"), 3)
    assert medoids.shape == (2, 3) and clusters.shape == (2, 10)


def test_clusters_are_nearly_as_tight_as_those_of_fasterpam_on_the_full_matrix():
    """2,000 tokens of one shard whose trajectories drift, 16 clusters; distances are 1 - similarity."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(40, 64, generator=generator)
    base = centres[torch.randint(40, (2000,), generator=generator)]
    everyone = torch.ones(1, 2000, dtype=torch.bool)
    trajectory = Trajectory(torch.arange(2000)[None], everyone, sketch=None)
    for _ in range(4):
        base = base + 0.5 * torch.randn(2000, 64, generator=generator)
        trajectory.observe(base)
    [vectors] = trajectory.vectors()
    distances = (1 - vectors @ vectors.T).clamp_min(0).double().numpy()
    best = min(kmedoids.fasterpam(distances, 16, random_state=seed).loss for seed in range(3))
    medoids, _ = k_medoids(vectors[None], everyone, 16)
    assert distances[:, medoids[0].numpy()].min(1).sum() < 1.05 * best
