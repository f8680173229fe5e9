"""Weights split over a video's ranks by FSDP2: what is split, what each rank holds of it, and what it sends.

What is gathered at a time is a *unit*: a block, or an embedding. Every other weight stays whole on every rank.
"""

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard

from parallel.group import own_device
from parallel.rank_group import RankGroup


def shard(module: nn.Module, group: RankGroup, *, whole: Collection[nn.Module] = ()) -> None:
    """Split the weights of every unit of `module` over the ranks; each gathers a unit before it runs, and forgets it.

    While a block runs, the next of its list is gathered. All ranks must run the same units in the same order. Call it
    while the module is on the meta device, and fill in what this rank holds with `parallel.weights.fill`. Every
    gathering is booked in the group's counter. A group of one rank holds the weights whole.

    Args:
        whole: parts of units that are also called by themselves, and so must not be split.
    """
    if group.world_size == 1:
        return
    module.requires_grad_(False)  # FSDP2 gathers a unit of several number formats only where nothing is trained
    mesh = DeviceMesh.from_group(dist.distributed_c10d._get_default_group(), own_device().type)
    kept, lists = _kept(whole), [part for part in module.modules() if isinstance(part, nn.ModuleList)]
    following = {unit: later for blocks in lists for unit, later in pairwise(blocks)}
    gathering, places = _Gathering(group), _places(module)
    for unit in _once(units(module)):
        before = dict(unit.named_parameters())
        num_bytes = sum(share_bytes(each, group.world_size) for each in _split_of(unit, kept))
        split = fully_shard(unit, mesh=mesh, reshard_after_forward=True, ignored_params=kept)
        gathering.units[unit] = Unit(split=split, num_bytes=num_bytes)
        for name, after in unit.named_parameters():
            for table, leaf in places[before[name]]:
                table[leaf] = after  # what shares a weight still does
        unit.register_forward_pre_hook(partial(gathering.need, unit), prepend=True)  # before FSDP2's own, which waits
        unit.register_forward_pre_hook(partial(gathering.go_on, following.get(unit)))


@dataclass(frozen=True, kw_only=True)
class Unit:
    """What FSDP2 has made of a unit, and the bytes that this rank puts in when it is gathered."""

    split: FSDPModule
    num_bytes: int


class _Gathering:
    """The unit of a module that is on its way, one at a time."""

    def __init__(self, group: RankGroup) -> None:
        self.group = group
        self.units: dict[nn.Module, Unit] = {}
        self.underway: Unit | None = None

    def need(self, module: nn.Module, *_: object) -> None:
        """A unit is to run: have it on its way, and nothing else."""
        unit = self.units[module]
        if self.underway not in (None, unit):  # the last run of blocks ended before their list did
            self.underway.split.unshard()
            self.underway.split.reshard()
        if self.underway is not unit:
            self._begin(unit)
        self.group.expect("all_gather")

    def go_on(self, later: nn.Module | None, *_: object) -> None:
        """What was needed has arrived: begin with what follows."""
        self.group.arrived()
        self.underway = None
        if later is not None:
            self._begin(self.units[later])

    def _begin(self, unit: Unit) -> None:
        self.group.counter.book("all_gather", unit.num_bytes, self.group.world_size)
        unit.split.unshard(async_op=True)
        self.underway = unit


def _places(module: nn.Module) -> dict[nn.Parameter, list[tuple[dict[str, nn.Parameter | None], str]]]:
    """Where parts of a module keep each parameter: their table of them, and its name there."""
    places: dict[nn.Parameter, list[tuple[dict[str, nn.Parameter | None], str]]] = {}
    for part in module.modules():
        for leaf, parameter in part._parameters.items():
            if parameter is not None:
                places.setdefault(parameter, []).append((part._parameters, leaf))
    return places


def _once(found: list[nn.Module]) -> list[nn.Module]:
    """Of units that are one weight under several names only the last, which is the one that T5's encoders run."""
    return [unit for number, unit in enumerate(found) if not _stands_later(unit, found[number + 1 :])]


def _stands_later(unit: nn.Module, later: list[nn.Module]) -> bool:
    own = set(unit.parameters())
    return bool(own) and any(own == set(each.parameters()) for each in later)


def units(module: nn.Module) -> list[nn.Module]:
    """The entries of the outermost module lists, and the embeddings outside of them."""
    found: list[nn.Module] = []
    for child in module.children():
        if isinstance(child, nn.ModuleList):
            found += [each for each in child if each is not None]  # such as blocks without attention
        else:
            found += [child] if isinstance(child, nn.Embedding) else units(child)
    return found


def share_rows(num_rows: int, num_ranks: int) -> int:
    """The rows of a split weight that each rank has memory for; the last ranks may have fewer rows, or none."""
    return -(-num_rows // num_ranks)


def share_bytes(weight: Tensor, num_ranks: int) -> int:
    """What each rank holds of a split weight `[rows, ...]`."""
    row_bytes = weight.numel() // max(1, len(weight)) * weight.element_size()
    return share_rows(len(weight), num_ranks) * row_bytes


def held_bytes(module: nn.Module, num_ranks: int = 1, *, whole: Collection[nn.Module] = ()) -> int:
    """The weights and buffers that one of `num_ranks` ranks holds; the module itself may be on the meta device."""
    kept = _kept(whole)
    split = {parameter for unit in units(module) for parameter in _split_of(unit, kept)}
    weights = sum(share_bytes(each, num_ranks) if each in split else _bytes(each) for each in module.parameters())
    return weights + sum(_bytes(buffer) for buffer in module.buffers())


def gathered_bytes(module: nn.Module, num_ranks: int, *, whole: Collection[nn.Module] = ()) -> int:
    """The most that a rank holds besides: what it received of a unit, and the weights that are copied out of that.

    While the unit runs, what comes in of the next takes the place of the first, which FSDP2 has given back. All of it
    is filled up as the shares are.
    """
    if num_ranks == 1:
        return 0
    kept = _kept(whole)
    return max(
        2 * num_ranks * sum(share_bytes(each, num_ranks) for each in _split_of(unit, kept)) for unit in units(module)
    )


def _kept(whole: Collection[nn.Module]) -> set[nn.Parameter]:
    return {parameter for part in whole for parameter in part.parameters()}


def _split_of(unit: nn.Module, kept: set[nn.Parameter]) -> list[nn.Parameter]:
    return [parameter for parameter in unit.parameters() if parameter not in kept]


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()
