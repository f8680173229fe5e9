"""The state of a generation between two steps as tensors and JSON, and back, to the bit.

What steps change is taken down: tensors, numbers, strings, lists, tuples, dictionaries, and objects of this package.
What `Engine.begin` makes and no step changes stays as a new `begin` makes it: modules, settings and the parts that the
caller names. Anything else is refused. Tensors are kept memory by memory, as bytes, so that those which share memory
still do, and strides are the same: a kernel may round otherwise for other strides.
"""

import sys
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.hooks.hooks import HookFunctionReference
from torch import Tensor, nn

Node = Any  # what JSON can hold
PACKAGE = "caching"
PLAIN = (type(None), bool, int, float, str)


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """A state: every memory that its tensors lie in, as bytes `[n]`, and the rest as plain data for JSON."""

    tensors: dict[str, Tensor]
    structure: Node

    @property
    def num_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())


def capture(state: dict[str, Any], fixed: Collection[object] = ()) -> Snapshot:
    """Take down a state, but for the `fixed` parts in it.

    The tensors are the state's own memory, no copies: write them before the next step.

    Raises:
        TypeError: if the state holds what cannot be taken down.
    """
    writer = _Writer(fixed)
    structure = writer.node(state, "the state")
    return Snapshot(tensors=writer.tensors, structure=structure)


def restore(snapshot: Snapshot, begun: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The state that was taken down, on `device`, in memory of its own.

    Args:
        begun: a state as it is after `begin`, which gives its fixed parts; its objects are used again, so that others
            who hold them see the change.

    Raises:
        ValueError: if `begun` lacks a part, or if a class is none of this package.
    """
    return _Reader(snapshot.tensors, device).value(snapshot.structure, begun)


class _Writer:
    def __init__(self, fixed: Collection[object]) -> None:
        self.fixed = {id(part) for part in fixed}
        self.numbers: dict[int, int] = {}  # of lists, dictionaries and objects, in the order in which they are met
        self.names: dict[int, str] = {}  # of memories
        self.tensors: dict[str, Tensor] = {}

    def node(self, value: Any, path: str) -> Node:
        """What stands for a value; `path` says where it was found."""
        kind = type(value)
        if kind in PLAIN:
            return value
        if kind is Tensor:
            return self._tensor(value)
        if id(value) in self.fixed or _never_changes(value):
            return {"fixed": _name(kind)}
        if kind is tuple:
            return {"tuple": self._nodes(value, path)}
        if id(value) in self.numbers:
            return {"again": self.numbers[id(value)]}
        number = self.numbers[id(value)] = len(self.numbers)
        if kind is list:
            return {"list": self._nodes(value, path), "number": number}
        if kind is dict and all(type(key) is str for key in value):
            return {"dict": self._fields(value, path), "number": number}
        if kind.__module__.partition(".")[0] == PACKAGE and hasattr(value, "__dict__"):
            return {"object": _name(kind), "fields": self._fields(vars(value), path), "number": number}
        raise TypeError(f"{path} is of the kind {_name(kind)}, which a checkpoint cannot hold")

    def _nodes(self, values: Collection[Any], path: str) -> list[Node]:
        return [self.node(value, f"{path}[{place}]") for place, value in enumerate(values)]

    def _fields(self, values: dict[str, Any], path: str) -> dict[str, Node]:
        return {name: self.node(value, f"{path}.{name}") for name, value in values.items()}

    def _tensor(self, tensor: Tensor) -> Node:
        memory = tensor.untyped_storage()
        name = self.names.setdefault(memory._cdata, f"memory-{len(self.names)}")
        if name not in self.tensors:
            self.tensors[name] = torch.empty(0, dtype=torch.uint8, device=memory.device).set_(memory)
        return {
            "memory": name,
            "device": tensor.device.type,
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "view": [tensor.storage_offset(), list(tensor.shape), list(tensor.stride())],
        }


class _Reader:
    def __init__(self, tensors: dict[str, Tensor], device: torch.device) -> None:
        self.tensors, self.device = tensors, device
        self.memories: dict[str, torch.UntypedStorage] = {}
        self.made: dict[int, Any] = {}
        self.used: set[int] = set()

    def value(self, node: Node, begun: Any) -> Any:
        """The value that a node stands for; `begun` is what `begin` has put in its place."""
        match node:
            case {"fixed": name}:
                if _name(type(begun)) != name:
                    raise ValueError(f"the state needs a {name}, but the generation began with {_name(type(begun))}")
                return begun
            case {"tuple": nodes}:
                return tuple(self._values(nodes, begun))
            case {"again": number}:
                return self.made[number]
            case {"list": nodes, "number": number}:
                self.made[number] = made = []
                made += self._values(nodes, begun)
                return made
            case {"dict": fields, "number": number}:
                self.made[number] = made = {}
                made.update(self._fields(fields, begun if isinstance(begun, dict) else {}))
                return made
            case {"object": name, "fields": fields, "number": number}:
                return self._object(_class(name), fields, number, begun)
            case {"memory": name, "device": device, "dtype": dtype, "view": view}:
                return self._tensor(name, device, getattr(torch, dtype), view)
        return node

    def _values(self, nodes: list[Node], begun: Any) -> list[Any]:
        before = begun if isinstance(begun, list | tuple) else ()
        return [self.value(node, before[place] if place < len(before) else None) for place, node in enumerate(nodes)]

    def _fields(self, nodes: dict[str, Node], begun: dict[str, Any]) -> dict[str, Any]:
        return {name: self.value(node, begun.get(name)) for name, node in nodes.items()}

    def _object(self, kind: type, fields: dict[str, Node], number: int, begun: Any) -> Any:
        """The object of `begin`, unless it stands for another one already, or a new one."""
        made = begun if type(begun) is kind and id(begun) not in self.used else object.__new__(kind)
        self.made[number] = made
        self.used.add(id(made))
        values = self._fields(fields, vars(made))
        vars(made).clear()
        vars(made).update(values)
        return made

    def _tensor(self, name: str, device: str, dtype: torch.dtype, view: list[Any]) -> Tensor:
        place = self.device if device == self.device.type else torch.device(device)
        if name not in self.memories:
            memory = torch.empty(self.tensors[name].shape, dtype=torch.uint8, device=place)
            self.memories[name] = memory.copy_(self.tensors[name]).untyped_storage()
        return torch.empty(0, dtype=dtype, device=place).set_(self.memories[name], *view)


def _never_changes(value: Any) -> bool:
    """Whether steps leave it alone: settings, modules, and how a hook calls its module."""
    settings = getattr(type(value), "__dataclass_params__", None)
    return (settings is not None and settings.frozen) or isinstance(value, nn.Module | HookFunctionReference)


def _name(kind: type) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"


def _class(name: str) -> type:
    """The class of that name; ValueError unless this package defines it."""
    module, _, qualname = name.partition(":")
    kind = getattr(sys.modules.get(module), qualname, None) if module.partition(".")[0] == PACKAGE else None
    if not isinstance(kind, type) or kind.__module__ != module:
        raise ValueError(f"a state holds objects of the package {PACKAGE}, not {name}")
    return kind
