"""What fits into a cluster, and what is said when it does not."""

import pytest

from cluster.placement import GangSpec, shortfall

EIGHT_GPUS = {"CPU": 64.0, "GPU": 8.0}


def test_gangs_that_fit_fall_short_of_nothing():
    spec = GangSpec(world_size=4, num_gpus_per_rank=1)
    assert shortfall(spec, 4, nodes=[EIGHT_GPUS, EIGHT_GPUS]) is None


def test_a_shortfall_names_what_is_asked_and_what_there_is():
    spec = GangSpec(world_size=8, num_gpus_per_rank=1)
    sentence = shortfall(spec, 2, nodes=[EIGHT_GPUS])
    assert sentence == (
        "2 gangs of 8 ranks asked for 16 CPUs and 16 GPUs (1 CPU and 1 GPU a rank), "
        "but the cluster has 64 CPUs and 8 GPUs on 1 node: room for 8 ranks."
    )


def test_a_rank_must_fit_on_one_node():
    spec = GangSpec(num_cpus_per_rank=2)
    assert shortfall(spec, 1, nodes=[{"CPU": 1.0}, {"CPU": 1.0}]) is not None


def test_ranks_that_belong_together_must_fit_on_one_node():
    nodes = [{"CPU": 3.0}, {"CPU": 3.0}]
    assert shortfall(GangSpec(world_size=4, together=2), 1, nodes) is None
    sentence = shortfall(GangSpec(world_size=4, together=4), 1, nodes)
    assert sentence == (
        "1 gang of 4 ranks asked for 4 CPUs (1 CPU a rank, 4 of them on one node), "
        "but the cluster has 6 CPUs on 2 nodes: room for 0 ranks."
    )


def test_shares_of_a_device_add_up():
    spec = GangSpec(world_size=10, num_gpus_per_rank=0.1, num_cpus_per_rank=0)
    assert shortfall(spec, 1, nodes=[{"GPU": 1.0}]) is None


def test_a_gang_without_ranks_or_resources_is_refused():
    with pytest.raises(ValueError, match="world_size is 0"):
        GangSpec(world_size=0)
    with pytest.raises(ValueError, match="3 ranks cannot be divided into groups of 2"):
        GangSpec(world_size=3, together=2)
    with pytest.raises(ValueError, match="must not be negative"):
        GangSpec(num_cpus_per_rank=-1)
    with pytest.raises(ValueError, match="both 0"):
        GangSpec(num_cpus_per_rank=0)
