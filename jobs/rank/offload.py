"""Models that wait in host memory and are on a device only while they are used."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

Table = dict[str, Any]  # parameters or buffers by their names in a module: torch declares them as two kinds


class SplitUnit(Protocol):
    """A module that FSDP2 gathers before it runs."""

    def reshard(self) -> None: ...

    def _apply(self, fn: Callable[[Tensor], Tensor]) -> nn.Module: ...


@contextmanager
def on_device(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Have a model on a device; what waited elsewhere is back there afterwards, whole weights and this rank's rows.

    Weights do not change in between, so what comes back is the tensors that were there: nothing is copied twice.
    """
    tables = [table for part in model.modules() for table in (part._parameters, part._buffers)]
    waiting: list[Table] = [
        {name: each for name, each in table.items() if each is not None and each.device != device} for table in tables
    ]
    if not any(waiting):
        yield
        return
    split = _split_units(model)
    try:
        moved = ({name: _moved(each, device) for name, each in tensors.items()} for tensors in waiting)
        _put(tables, moved, split)
        yield
    finally:
        _put(tables, waiting, split)


@contextmanager
def taking_turns(models: Sequence[nn.Module], device: torch.device) -> Iterator[None]:
    """Have each of several models on a device from when it is called until another one is, or the block ends."""
    present, running = ExitStack(), None

    def bring(model: nn.Module, *_: object) -> None:
        nonlocal running
        if model is not running:
            present.close()
            present.enter_context(on_device(model, device))
            running = model

    handles = [model.register_forward_pre_hook(bring, prepend=True) for model in models]  # before FSDP2's own
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        present.close()


def pin(model: nn.Module) -> None:
    """Have a model wait in pinned host memory, from which a GPU copies by itself, and several times as fast."""
    for tensor in (*model.parameters(), *model.buffers()):
        if isinstance(tensor, DTensor):  # made anew, it would go to the device of its mesh
            tensor._local_tensor = tensor._local_tensor.pin_memory()
        else:
            tensor.data = tensor.data.pin_memory()
    for unit in _split_units(model):
        _look_anew(unit)


def _split_units(model: nn.Module) -> list[SplitUnit]:
    return [part for part in model.modules() if isinstance(part, FSDPModule)]


def _look_anew(unit: SplitUnit) -> None:
    """Have FSDP2 forget where a unit's rows were."""
    unit._apply(lambda tensor: tensor)


def _moved(tensor: Tensor, device: torch.device) -> Tensor:
    moved = tensor.detach().to(device)
    return nn.Parameter(moved, requires_grad=False) if isinstance(tensor, nn.Parameter) else moved


def _put(tables: Sequence[Table], tensors: Iterable[Table], split: Sequence[SplitUnit]) -> None:
    """Put tensors where the modules keep them; units that FSDP2 gathers look anew at the rows that they hold."""
    for unit in split:
        unit.reshard()
    for table, new in zip(tables, tensors, strict=True):
        table.update(new)
    for unit in split:
        _look_anew(unit)
