"""Models that wait in host memory and are on a device only while they are used."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor


@contextmanager
def on_device(model: nn.Module, device: torch.device) -> Iterator[None]:
    """Have a model on a device; where it waited elsewhere, it is back there afterwards.

    Weights do not change in between, so what comes back is the tensors that were there: nothing is copied twice.
    Weights that are split over ranks are moved by the modules that gather them.
    """
    home = next(model.parameters()).device
    if home == device:
        yield
        return
    tables = _tables(model)
    whole = [{name: each for name, each in table.items() if _is_whole(each)} for table in tables]
    split = [part for part in model.modules() if isinstance(part, FSDPModule)]
    try:
        for table, tensors in zip(tables, whole, strict=True):
            table.update({name: _moved(tensor, device) for name, tensor in tensors.items()})
        _move(split, device)
        yield
    finally:
        for table, tensors in zip(tables, whole, strict=True):
            table.update(tensors)
        _move(split, home)


def _tables(model: nn.Module) -> list[dict[str, Any]]:
    """Where the parts of a model keep their parameters and buffers."""
    return [table for part in model.modules() for table in (part._parameters, part._buffers)]


def _is_whole(tensor: torch.Tensor | None) -> bool:
    return tensor is not None and not isinstance(tensor, DTensor)


def _moved(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    moved = tensor.detach().to(device)
    return nn.Parameter(moved, requires_grad=False) if isinstance(tensor, nn.Parameter) else moved


def _move(modules: Sequence[nn.Module], device: torch.device) -> None:
    for module in modules:
        module.to(device)
