"""Weights from safetensors files into a module that was built on the meta device, without a second copy in memory."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from parallel.sharding import share_rows

PIECE_BYTES = 16 << 20  # read at a time: the pages of an open file count as this process's memory


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Where a tensor lies: a safetensors file, and its name there."""

    path: Path
    name: str


def stored_tensors(folder: Path, file_name: str, index_name: str | None = None) -> dict[str, Stored]:
    """Every tensor of a checkpoint by its name: of its index if there is one, else of the file itself.

    The index is `FILE_NAME.index.json` unless it has another name. FileNotFoundError if the folder has neither.
    """
    index = folder / (index_name or f"{file_name}.index.json")
    if index.exists():
        files = json.loads(index.read_bytes())["weight_map"]
        return {name: Stored(path=folder / file, name=name) for name, file in files.items()}
    if not (folder / file_name).exists():
        raise FileNotFoundError(f"neither {file_name} nor {index.name} is in {folder}")
    with safe_open(folder / file_name, framework="pt") as file:
        return {name: Stored(path=folder / file_name, name=name) for name in file.keys()}  # noqa: SIM118


@torch.no_grad()
def fill(module: nn.Module, stored: Mapping[str, Stored], device: torch.device) -> None:
    """Give a module its weights: each is read straight into its own number format on `device`, piece by piece.

    Of a weight that `parallel.sharding.shard` split, only this rank's rows are read. Weights that share a parameter
    need one stored tensor. Buffers that are not stored keep their values, and move.

    Raises ValueError, before anything is read, if tensors are missing or left over, and at one of another shape.
    """
    owners = _owners(module)
    _check_names(module, owners, stored)
    for places in owners.values():
        source = next((stored[place.name] for place in places if place.name in stored), None)
        tensor = places[0].table[places[0].leaf]
        filled = tensor.to(device) if source is None else _filled(tensor, source, device)
        for place in places:
            place.table[place.leaf] = filled


@dataclass(frozen=True, kw_only=True)
class _Place:
    """Where a module keeps a parameter or buffer: its full name, the table of the part that owns it, its name there."""

    name: str
    table: dict[str, Any]  # what torch declares as two kinds, one of parameters and one of tensors
    leaf: str


def _owners(module: nn.Module) -> dict[int, list[_Place]]:
    """The places of each distinct parameter and buffer; those that share one come together."""
    owners: dict[int, list[_Place]] = {}
    for path, part in module.named_modules():
        for table in (part._parameters, part._buffers):
            for leaf, tensor in table.items():
                if tensor is not None:
                    place = _Place(name=f"{path}.{leaf}".lstrip("."), table=table, leaf=leaf)
                    owners.setdefault(id(tensor), []).append(place)
    return owners


def _check_names(module: nn.Module, owners: Mapping[int, list[_Place]], stored: Mapping[str, Stored]) -> None:
    wanted = set(module.state_dict())
    groups = [[place.name for place in places if place.name in wanted] for places in owners.values()]
    missing = [names[0] for names in groups if names and not stored.keys() & set(names)]
    left_over = sorted(stored.keys() - wanted)
    complaints = [
        f"{what}: {', '.join(names[:3])}{f' and {len(names) - 3} more' * (len(names) > 3)}"
        for what, names in (("missing", missing), ("not of this model", left_over))
        if names
    ]
    if complaints:
        raise ValueError(f"the stored weights do not fit {type(module).__name__}: {'; '.join(complaints)}")


def _filled(tensor: Tensor, source: Stored, device: torch.device) -> Tensor:
    """A tensor like this one, on the device and with the stored values."""
    if isinstance(tensor, DTensor):
        values: Tensor = _own_rows(tensor, source, device)
    else:
        values = torch.empty(tensor.shape, dtype=tensor.dtype, device=device)
        _read(source, values, tensor.shape, 0)
    return nn.Parameter(values, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else values


def _own_rows(weight: DTensor, source: Stored, device: torch.device) -> Tensor:
    """This rank's rows of a split weight; the memory is as large on every rank, as FSDP2 wants to have it.

    They lie on `device`, even if the ranks gather them on another one.
    """
    mesh = weight.device_mesh
    num_rows = share_rows(len(weight), mesh.size())
    first = min(len(weight), mesh.get_local_rank() * num_rows)
    share = torch.zeros((num_rows, *weight.shape[1:]), dtype=weight.dtype, device=device)
    rows = share[: min(num_rows, len(weight) - first)]
    _read(source, rows, weight.shape, first)
    own = DTensor.from_local(rows, mesh, weight.placements, run_check=False, shape=weight.shape, stride=weight.stride())
    return own.to(device)  # which `from_local` has left for that of the mesh


def _read(source: Stored, target: Tensor, shape: torch.Size, first: int) -> None:
    """Copy the stored rows from `first` on, as many as `target` has. The file is opened anew for each piece."""
    for start, stop in _pieces(target):
        with safe_open(source.path, framework="pt") as file:
            rows = file.get_slice(source.name)
            if rows.get_shape() != list(shape):
                raise ValueError(
                    f"{source.path}: {source.name} is {rows.get_shape()}, but the model has {list(shape)}."
                )
            if target.ndim == 0:
                target.copy_(file.get_tensor(source.name))
            else:
                target[start:stop].copy_(rows[first + start : first + stop])


def _pieces(target: Tensor) -> Iterator[tuple[int, int]]:
    """Ranges of rows of a few megabytes; one for a tensor without dimensions, none for one without rows."""
    num_rows = len(target) if target.ndim else 1
    step = max(1, PIECE_BYTES * num_rows // max(1, target.nbytes))
    for start in range(0, num_rows, step):
        yield start, min(start + step, num_rows)
