"""The state of a generation between two steps as tensors and JSON, and back, to the bit.

Tensors are kept memory by memory, as bytes, so that those which share memory still do, and strides are the same: a
kernel may round otherwise for other strides.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from caching.state_dict import StateDict

STATE_VERSION = 5  # raise it when a state of the version before would be misread, or lead to other latents
Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | float | None"


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A state: every memory that its tensors lie in, as bytes `[n]`, and the rest as plain data for JSON."""

    tensors: dict[str, Tensor]
    structure: Json

    @property
    def num_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())


def capture(state: StateDict) -> Snapshot:
    """Take down a state.

    The tensors are the state's own memory, no copies: write them before the next step.

    Raises:
        TypeError: if the state holds what cannot be taken down.
    """
    writer = _Writer()
    structure: Json = {"version": STATE_VERSION, "state": writer.node(state, "the state")}
    return Snapshot(structure=structure, tensors=writer.tensors)


def restore(snapshot: Snapshot, device: torch.device) -> StateDict:
    """The state that was taken down, on `device`, in memory of its own. ValueError for another version's."""
    match snapshot.structure:
        case {"version": version, "state": {"dict": dict(nodes)}} if version == STATE_VERSION:
            return _Reader(snapshot.tensors, device).entries(nodes)
    raise ValueError(f"the snapshot is none of version {STATE_VERSION}")


class _Writer:
    def __init__(self) -> None:
        self.names: dict[int, str] = {}  # of memories
        self.tensors: dict[str, Tensor] = {}

    def node(self, value: object, path: str) -> Json:
        """What stands for a value; `path` says where it was found."""
        match value:
            case None | bool() | int() | float() | str():
                return value
            case list():
                return [self.node(each, f"{path}[{place}]") for place, each in enumerate(value)]
            case dict() if all(type(key) is str for key in value):
                return {"dict": {key: self.node(each, f"{path}.{key}") for key, each in value.items()}}
            case Tensor() if type(value) is Tensor:
                return self._tensor(value)
        raise TypeError(f"{path} is of the kind {type(value).__qualname__}, which a checkpoint cannot hold")

    def _tensor(self, tensor: Tensor) -> Json:
        memory = tensor.untyped_storage()
        name = self.names.setdefault(memory._cdata, f"memory-{len(self.names)}")
        if name not in self.tensors:
            self.tensors[name] = torch.empty(0, dtype=torch.uint8, device=memory.device).set_(memory)
        return {
            "memory": name,
            "device": tensor.device.type,
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "view": [int(tensor.storage_offset()), [*map(int, tensor.shape)], [*map(int, tensor.stride())]],
        }


class _Reader:
    def __init__(self, tensors: Mapping[str, Tensor], device: torch.device) -> None:
        self.tensors, self.device = tensors, device
        self.memories: dict[str, torch.UntypedStorage] = {}

    def value(self, node: Json) -> object:
        """The value that a node stands for."""
        match node:
            case list():
                return [self.value(each) for each in node]
            case {"dict": dict(nodes)}:
                return self.entries(nodes)
            case {"memory": str(name), "device": str(device), "dtype": str(dtype), "view": list(view)}:
                place = self.device if device == self.device.type else torch.device(device)
                empty = torch.empty(0, dtype=getattr(torch, dtype), device=place)
                return _viewed(empty, self._memory(name, place), *view)
        return node

    def entries(self, nodes: Mapping[str, Json]) -> StateDict:
        return {name: self.value(node) for name, node in nodes.items()}

    def _memory(self, name: str, place: torch.device) -> torch.UntypedStorage:
        if name not in self.memories:
            memory = torch.empty(self.tensors[name].shape, dtype=torch.uint8, device=place)
            self.memories[name] = memory.copy_(self.tensors[name]).untyped_storage()
        return self.memories[name]


def _viewed(empty: Tensor, memory: torch.UntypedStorage, offset: Json, shape: Json, stride: Json) -> Tensor:
    """The tensor that looks at a memory in this way. ValueError for what is no place in a memory."""
    match offset, shape, stride:
        case int(), list(), list():
            sizes, strides = ([each for each in numbers if isinstance(each, int)] for numbers in (shape, stride))
            return empty.set_(memory, offset, sizes, strides)
    raise ValueError(f"{offset}, {shape} and {stride} are no place in a memory")
