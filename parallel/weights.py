"""Weights from safetensors files into a module that was built on the meta device, without a second copy in memory."""

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from parallel.sharding import share_rows

PIECE_BYTES = 16 << 20  # read at a time
# As safetensors calls them, but for those that nothing is computed with.
NUMBER_FORMATS = {
    **{"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16},
    **{"I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8},
    "BOOL": torch.bool,
}
HEADER_LENGTH_BYTES = 8  # at the beginning of a file; https://github.com/huggingface/safetensors#format


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a module keeps of a stored tensor instead of itself: made of any of its rows, a row of each."""

    shape: tuple[int, ...]
    make: Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Where a tensor lies: a safetensors file, its name there, and its first byte in the file."""

    path: Path
    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    part: Part | None = None

    @property
    def kept_shape(self) -> tuple[int, ...]:
        """What a module has of it."""
        return self.part.shape if self.part else self.shape

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


def stored_tensors(folder: Path, file_name: str, index_name: str | None = None) -> dict[str, Stored]:
    """Every tensor of a checkpoint by its name: of its index if there is one, else of the file itself.

    The index is `FILE_NAME.index.json` unless it has another name. FileNotFoundError if the folder has neither;
    ValueError for what the index names and is not there, and for a number format that nothing is computed with.
    """
    index = folder / (index_name or f"{file_name}.index.json")
    if index.exists():
        return _indexed(index, json.loads(index.read_bytes())["weight_map"])
    if not (folder / file_name).exists():
        raise FileNotFoundError(f"neither {file_name} nor {index.name} is in {folder}")
    return _tensors_in(folder / file_name)


def _indexed(index: Path, files: Mapping[str, str]) -> dict[str, Stored]:
    """The tensors that an index names, each in the file that it names for it."""
    paths = {file: index.parent / file for file in dict.fromkeys(files.values())}
    if missing := [path for path in paths.values() if not path.exists()]:
        raise ValueError(f"{missing[0]} is missing, which {index.name} names.")
    found = {file: _tensors_in(path) for file, path in paths.items()}
    if lacking := [name for name, file in files.items() if name not in found[file]]:
        raise ValueError(f"{paths[files[lacking[0]]]} lacks {lacking[0]}, which {index.name} looks for there.")
    return {name: found[file][name] for name, file in files.items()}


def _tensors_in(path: Path) -> dict[str, Stored]:
    """The tensors of one file: as the format wants it, each begins where the one before it ends."""
    with path.open("rb") as file:
        offset = HEADER_LENGTH_BYTES + int.from_bytes(file.read(HEADER_LENGTH_BYTES), "little")
    found = {}
    with safe_open(path, framework="pt") as tensors:
        for name in tensors.offset_keys():
            kind, shape = tensors.get_slice(name).get_dtype(), tensors.get_slice(name).get_shape()
            if kind not in NUMBER_FORMATS:
                raise ValueError(f"{path}: {name} is stored as {kind}, not as one of {', '.join(NUMBER_FORMATS)}.")
            found[name] = Stored(path=path, name=name, dtype=NUMBER_FORMATS[kind], shape=tuple(shape), offset=offset)
            offset += found[name].num_bytes
    return found


@torch.no_grad()
def fill(module: nn.Module, stored: Mapping[str, Stored], device: torch.device) -> None:
    """Give a module its weights: each is read straight into its own number format on `device`, piece by piece.

    Of a weight that `parallel.sharding.shard` split, only this rank's rows are read. Weights that share a parameter
    need one stored tensor. Buffers that are not stored keep their values, and move.

    Raises ValueError, before anything is read, if tensors are missing, left over or of another shape, and later for a
    file that has become shorter.
    """
    owners = _owners(module)
    _check_names(module, owners, stored)
    sources = {key: _source(places, stored) for key, places in owners.items()}
    with _Reader(device) as reader:
        for key, places in owners.items():
            source, tensor = sources[key], places[0].table[places[0].leaf]
            filled = tensor.to(device) if source is None else _filled(tensor, source, reader)
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


def _source(places: list[_Place], stored: Mapping[str, Stored]) -> Stored | None:
    """What is stored of a weight; None for a buffer that is not. ValueError if it is of another shape."""
    source = next((stored[place.name] for place in places if place.name in stored), None)
    tensor: Tensor = places[0].table[places[0].leaf]
    if source is not None and source.kept_shape != tensor.shape:
        stands = f"{source.name} is {list(source.kept_shape)}, but the model has {list(tensor.shape)}"
        raise ValueError(f"{source.path}: {stands}.")
    return source


class _Reader:
    """Reads stored tensors through one buffer, which is pinned where the weights go to a GPU.

    What is read from a file by its own bytes is not also mapped: those pages would count as this process's memory.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._buffer = torch.empty(PIECE_BYTES, dtype=torch.uint8, pin_memory=device.type == "cuda")
        self._files: dict[Path, BufferedReader] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self, source: Stored, target: Tensor, first: int = 0) -> None:
        """Fill a contiguous tensor with the stored rows from `first` on, as many as it has, or what is made of them."""
        if source.part is not None:
            rows = torch.empty((len(target), *source.shape[1:]), dtype=source.dtype, device=self.device)
            self.read(replace(source, part=None), rows, first)
            target.copy_(source.part.make(rows))
            return
        file, size = self._file(source.path), source.dtype.itemsize
        file.seek(source.offset + first * prod(source.shape[1:]) * size)
        for piece in target.view(-1).split(max(1, PIECE_BYTES // size)):
            stored = self._buffer[: len(piece) * size]
            if file.readinto(stored.numpy().data) < len(stored):
                raise ValueError(f"{source.path} ends within {source.name}: copy or download it again.")
            piece.copy_(stored.view(source.dtype).to(self.device))  # other number formats are made on the device

    def _file(self, path: Path) -> BufferedReader:
        if path not in self._files:
            self._files[path] = self._stack.enter_context(path.open("rb"))
        return self._files[path]


def _filled(tensor: Tensor, source: Stored, reader: _Reader) -> Tensor:
    """A tensor like this one, on the reader's device and with the stored values."""
    if isinstance(tensor, DTensor):
        values: Tensor = _own_rows(tensor, source, reader)
    else:
        values = torch.empty(tensor.shape, dtype=tensor.dtype, device=reader.device)
        reader.read(source, values)
    return nn.Parameter(values, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else values


def _own_rows(weight: DTensor, source: Stored, reader: _Reader) -> Tensor:
    """This rank's rows of a split weight; the memory is as large on every rank, as FSDP2 wants to have it.

    They lie on the reader's device, even if the ranks gather them on another one.
    """
    mesh = weight.device_mesh
    num_rows = share_rows(len(weight), mesh.size())
    first = min(len(weight), mesh.get_local_rank() * num_rows)
    share = torch.zeros((num_rows, *weight.shape[1:]), dtype=weight.dtype, device=reader.device)
    rows = share[: min(num_rows, len(weight) - first)]
    reader.read(source, rows, first)
    own = DTensor.from_local(rows, mesh, weight.placements, run_check=False, shape=weight.shape, stride=weight.stride())
    return own.to(reader.device)  # which `from_local` has left for that of the mesh
