"""Groups of some of a video's ranks, beside those that an engine of sequence parallelism makes for itself."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch.distributed as dist

from parallel.layout import Layout


def make_subgroups(layout: Layout) -> tuple[dist.ProcessGroup | None, dist.ProcessGroup | None]:
    """Those who share this rank's tokens, and those who hold the same ones in other parts; None for all and for nobody.

    Every rank makes all groups in the same order, as torch wants it.
    """
    size = layout.sequence_size
    parts = [[part * size + number for number in range(size)] for part in range(layout.cfg)]
    return (own_group(parts), own_group(list(zip(*parts, strict=True)))) if layout.cfg > 1 else (None, None)


def own_group(groups: Iterable[Iterable[int]]) -> dist.ProcessGroup:
    """Of the groups of ranks, which all are made, the one with this rank."""
    made = {ranks: dist.new_group(list(ranks)) for ranks in map(tuple, groups)}
    [own] = [group for ranks, group in made.items() if dist.get_rank() in ranks]
    assert isinstance(own, dist.ProcessGroup)
    return own


@contextmanager
def world_unbound() -> Iterator[None]:
    """Groups that are made in the block get a communicator of their own, when they are used first.

    While the default process group is bound to a device, each group would be split from its communicator, which all
    ranks take part in, members or not: more than a hundred times, for two groups that are used.
    """
    world = dist.distributed_c10d._get_default_group()
    device, world.bound_device_id = world.bound_device_id, None
    try:
        yield
    finally:
        world.bound_device_id = device
