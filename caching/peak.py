"""The most memory that a denoising loop holds beside the weights, found by running its steps on the meta device."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from caching.flops import Config, Lengths, MetaLoop, groups_of
from caching.group import Group
from caching.models.state import Grid
from caching.recipe.recipe import Recipe

SPARSE_STEPS = 3  # that are run of a group: proxies are computed in every third


class Allocations(TorchDispatchMode):
    """Adds up the memory of the tensors on one kind of device that are made in the block, for as long as they live.

    What kernels need for themselves is not seen, nor what an allocator keeps back.

    Args:
        beside: tensors that were there before, whose memory does not count.
    """

    def __init__(self, device_type: str, beside: Iterable[Tensor] = ()) -> None:
        super().__init__()
        self.device_type = device_type
        self.peak_bytes = 0
        self._bytes = 0  # of all that were alive when was last looked
        self._known: dict[int, tuple[StorageWeakRef, int]] = {}
        for tensor in beside:
            memory = tensor.untyped_storage()
            self._known[memory._cdata] = StorageWeakRef(memory), 0

    def __torch_dispatch__(self, func: Any, kinds: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Called by torch in place of each operation."""
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor) and tensor.device.type == self.device_type:
                self._note(tensor.untyped_storage())
        return output

    def _note(self, memory: torch.UntypedStorage) -> None:
        if memory._cdata in self._known:  # a weak reference keeps its number from being given to another
            return
        self._known[memory._cdata] = StorageWeakRef(memory), memory.nbytes()
        self._bytes += memory.nbytes()
        if self._bytes > self.peak_bytes:
            self._forget_dead()
            self.peak_bytes = max(self.peak_bytes, self._bytes)

    def _forget_dead(self) -> None:
        for number, (reference, num_bytes) in list(self._known.items()):
            if reference.expired():
                del self._known[number]
                self._bytes -= num_bytes


def peak_loop_bytes(
    config: Config,
    method: Recipe,
    *,
    grid: Grid,
    num_text_tokens: Lengths,
    num_steps: int,
    dtype: torch.dtype,
    group: Group,
) -> int:
    """What one rank of `group` holds beside the weights at its fullest moment: activations and cache.

    The group's attention has to be one that needs no values and no N x N matrix (`parallel.imagined`). Only as many
    steps are run as it takes for everything to be there that a method ever keeps.
    """
    size: Any = {"grid": grid, "num_text_tokens": num_text_tokens, "num_steps": num_steps}
    loop = MetaLoop(config, method, **size, dtype=dtype, group=group)
    model = loop.engine.transformer
    with Allocations("meta", beside=[*model.parameters(), *model.buffers()]) as allocations:
        loop.begin(grid)
        for first, length in steps_that_fill(groups_of(loop.dense_steps, loop.num_steps)):
            loop.run(first, length)
    return allocations.peak_bytes


def steps_that_fill(groups: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Of two groups with sparse steps some of these, and the next dense step; of a loop without any, one step."""
    with_sparse = [number for number, (_, length) in enumerate(groups) if length > 1][:2]
    if not with_sparse:
        return [(groups[0][0], 1)]
    begun = [(first, min(length, 1 + SPARSE_STEPS)) for first, length in (groups[number] for number in with_sparse)]
    following = groups[with_sparse[-1] + 1 :]
    return [*begun, *((first, 1) for first, _ in following[:1])]
