"""FLOPs of what runs on the meta device, counted in little time.

Most of what torch's own counter takes goes into working out, in Python, which shape each operation gives. Here that is
done once for each operation and the shapes that it is given: a loop repeats the same few hundred many times.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

Given = tuple[object, ...]
Made = tuple[torch.Size, tuple[int, ...], torch.dtype] | None
Known = dict[Given, tuple[int, tuple[Made, ...]]]  # FLOPs, and the shapes that come out


class MetaCounter(TorchDispatchMode):
    """Counts like `FlopCounterMode` of torch, of tensors without values; `flops` is the sum so far.

    `known` is what operations give: pass the same one to counters of the same process.
    """

    def __init__(self, known: Known) -> None:
        super().__init__()
        self.known, self.flops = known, 0

    def __torch_dispatch__(
        self, func: OpOverload, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        given = func, described(args), described(kwargs)
        if (found := self.known.get(given)) is not None:
            flops, made = found
            self.flops += flops
            outputs = [_empty(each) for each in made]
            return outputs[0] if len(func._schema.returns) == 1 else tuple(outputs)
        out = func(*args, **kwargs)
        counts = flop_registry.get(func._overloadpacket)
        flops = int(counts(*args, **kwargs, out_val=out)) if counts else 0
        self.flops += flops
        outputs = (out,) if len(func._schema.returns) == 1 else out
        if makes_new_tensors(func) and all(is_plain(each) for each in outputs):
            self.known[given] = flops, tuple(_made(each) for each in outputs)
        return out


def described(value: object) -> object:
    """Arguments by what decides shapes: of tensors not which one it is, but its own shape."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device.type
    if isinstance(value, list | tuple):
        return tuple(map(described, value))
    if isinstance(value, dict):
        return tuple((name, described(each)) for name, each in value.items())
    return type(value), value  # 1 and True are equal, and what they give is not


def makes_new_tensors(func: OpOverload) -> bool:
    """Whether its outputs share nothing with its inputs, and these stay as they are."""
    return not func._schema.is_mutable and not any(each.alias_info for each in func._schema.returns)


def is_plain(output: object) -> bool:
    """Whether it is nothing but a shape."""
    return output is None or (type(output) is Tensor and output.is_meta)


def _made(output: Tensor | None) -> Made:
    return None if output is None else (output.shape, output.stride(), output.dtype)


def _empty(made: Made) -> Tensor | None:
    return None if made is None else torch.empty_strided(made[0], made[1], dtype=made[2], device="meta")
