"""Ranks of a video on GPUs that are not there: xfuser's and FSDP2's own code, where no other rank answers."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from pytest import MonkeyPatch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from parallel import weights
from parallel.group import SequenceGroup
from parallel.layout import Layout
from parallel.sharding import shard
from parallel.weights import Stored, fill
from tests.caching.steps import FAMILIES, Sight, model_of, see_steps
from tests.caching.test_on_fake_cuda import check
from tests.fake_cuda import CUDA, MODE, fake_world, on_fake_cuda

DTYPE = torch.bfloat16
UNEVEN = (5, 29, 41)  # 5945 tokens: neither 6 nor 8 ranks hold as many each
# Groups that xfuser makes, most of them of one rank and never used: one for the device and one for gloo each.
NUM_GROUPS = {(8, 1): 104, (4, 2): 101, (1, 8): 104, (6, 1): 80, (2, 3): 78}
LAYOUTS = [pytest.param(*degrees, id="x".join(map(str, degrees))) for degrees in NUM_GROUPS]
COPIES_OF_RANKS = {
    "parallel.attention.kept_keys": "once a layout and size: which keys are real, and which fill up",
}


def make_groups(layout: Layout, rank: int) -> tuple[list, bool, list[int]]:
    """The groups that are made; whether the world is bound to its device then; the sizes above 1 of what is left."""
    with fake_world(rank, layout.world_size) as made:
        with sequence_group(layout):
            bound = dist.distributed_c10d._get_default_group().bound_device_id == CUDA
        sizes = [dist.get_world_size(group) for group in dist.distributed_c10d._world.pg_map]
        return list(made), bound, [size for size in sizes if size > 1]


@pytest.mark.parametrize(("ulysses", "ring"), LAYOUTS)
def test_every_rank_makes_the_same_groups_in_the_same_order_and_splits_none_from_the_world(fake_cuda, ulysses, ring):
    """NCCL splits a world among all its ranks, members or not: ranks that come to it in another order hang."""
    layout = Layout(ulysses=ulysses, ring=ring)
    by_rank = [fake_cuda.run(make_groups, layout, rank) for rank in (0, 1, layout.world_size - 1)]
    for made, bound, left in by_rank:
        assert bound and left == [layout.world_size]
        assert made == by_rank[0][0]
        assert not [ranks for ranks, _, split in made if split]
        assert len(made) == NUM_GROUPS[ulysses, ring]


def see_rank(layout: Layout, rank: int, name: str) -> tuple[Sight, list[int]]:
    """A recipe's steps on one rank, and the tokens of each rank."""
    with fake_world(rank, layout.world_size), sequence_group(layout) as group:
        return see_steps(model_of("hunyuanvideo", DTYPE), name, DTYPE, UNEVEN, group), group.pieces


@contextmanager
def sequence_group(layout: Layout) -> Iterator[SequenceGroup]:
    group = SequenceGroup(layout, deadline_s=1)
    try:
        yield group
    finally:
        group.close()


NAMES = ("full", "auto", "resca", "toca", "pab", "teacache", "sdtm", "delta-dit")


def cases():
    for layout in LAYOUTS:
        for name in NAMES:
            quick = name == "full" or (name == "resca" and layout.values in ((8, 1), (2, 3)))
            yield pytest.param(*layout.values, name, id=f"{layout.id}-{name}", marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(("ulysses", "ring", "name"), cases())
def test_a_rank_stays_on_the_device_and_keeps_the_number_format(fake_cuda, ulysses, ring, name):
    layout = Layout(ulysses=ulysses, ring=ring)
    sight, pieces = fake_cuda.run(see_rank, layout, layout.world_size - 1, name)
    assert len(set(pieces)) > 1 and len(pieces) == layout.world_size
    check(sight, DTYPE, COPIES_OF_RANKS)


class NothingToRead:
    """In the place of the reader of weights: they have no values here."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def __enter__(self) -> "NothingToRead":
        return self

    def __exit__(self, *_: object) -> None: ...

    def read(self, *_: object) -> None: ...


def stored(name: str, tensor: Tensor) -> Stored:
    return Stored(path=Path(), name=name, dtype=DTYPE, shape=tuple(tensor.shape), offset=0)


def see_split_weights(name: str) -> tuple[Sight, tuple[str, tuple[int, ...]]]:
    """A recipe's steps on a rank that holds an eighth of each block; where and what it holds of a layer."""
    layout = Layout(ulysses=8)
    make, settings = FAMILIES["hunyuanvideo"]
    model: Any = on_fake_cuda(make, DTYPE, device="meta", **settings)
    with fake_world(3, layout.world_size), sequence_group(layout) as group, MonkeyPatch.context() as patch:
        patch.setattr(weights, "_Reader", NothingToRead)
        mesh = DeviceMesh.from_group(dist.distributed_c10d._get_default_group(), "cuda")  # reads values of its own
        patch.setattr(DeviceMesh, "from_group", lambda *_: mesh)
        with MODE:
            shard(model, group, whole=[model.transformer_blocks[0].norm1])
            fill(model, {name: stored(name, tensor) for name, tensor in model.state_dict().items()}, CUDA)
        own = model.transformer_blocks[0].attn.to_q.weight.to_local()
        return see_steps(model, name, DTYPE, UNEVEN, group), (own.device.type, tuple(own.shape))


@pytest.mark.parametrize("name", ["full", pytest.param("resca", marks=pytest.mark.slow)])
def test_a_rank_that_holds_a_part_of_the_weights_does_the_same(fake_cuda, name):
    sight, held = fake_cuda.run(see_split_weights, name)
    assert held == ("cuda", (384 // 8, 384))
    check(sight, DTYPE, COPIES_OF_RANKS)
