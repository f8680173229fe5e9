"""What a rank refuses before it joins the others."""

import pytest

from cluster.ranks import RankContext
from cluster.worker import _join


def test_a_rank_that_sees_the_gpus_of_others_names_the_variable(monkeypatch):
    monkeypatch.setenv("RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES", "1")
    context = RankContext(rank=0, world_size=2, local_rank=0, device="cuda:0")
    with pytest.raises(ValueError, match=r"_NOSET_CUDA_VISIBLE_DEVICES=1 keeps Ray .* own, .*; unset it where Ray is"):
        _join(None, context, timeout_s=1, num_threads=1)
