"""Weights in 8 bits: float8 numbers (e4m3) with a scale a row, and in the model's own format wherever they are read.

They are parametrizations of PyTorch: `layer.weight` is made anew each time that it is asked for. The numbers and scales
are those of torchao's weight-only float8, to the bit.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from parallel.sharding import units
from parallel.weights import Part, Stored

E4M3 = torch.float8_e4m3fn
# Of what diffusers leaves whole where it stores these models in 8 bits: norms, with the layers that modulate them, and
# embedders. Final projections stand outside the blocks.
WHOLE = ("norm", "embed")
ADA = (8, 9)  # compute capability


class RowScales(nn.Module):
    """A weight `[rows, columns]` of a number format, kept as float8 numbers of its shape and scales `[rows, 1]`."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def forward(self, numbers: Tensor, scales: Tensor) -> Tensor:
        """The weight `[rows, columns]`."""
        return numbers.to(self.dtype).mul_(scales)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers and scales: the largest of a row becomes the largest that there is; a row of zeros stays one."""
        weight, limits = weight.to(self.dtype), torch.finfo(E4M3)
        scales = (weight.abs().amax(1, keepdim=True) / limits.max).clamp(min=torch.finfo(self.dtype).smallest_normal)
        return (weight.float() / scales).clamp(limits.min, limits.max).to(E4M3), scales

    def part(self, number: int, rows: Tensor) -> Tensor:
        """The numbers (0) or the scales (1) of some rows."""
        return self.right_inverse(rows)[number]


def quantise(model: nn.Module) -> None:
    """Keep the weights of linear layers in a model's blocks in 8 bits, but for WHOLE; it may be on the meta device."""
    in_blocks = {part for unit in units(model) for part in unit.modules()}
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Linear) and layer in in_blocks and not any(word in name for word in WHOLE):
            layer.weight.requires_grad_(False)
            parametrize.register_parametrization(layer, "weight", RowScales(layer.weight.dtype), unsafe=True)


def compile_obstacle(device: torch.device) -> str | None:
    """Why compiled blocks cannot make such weights on a device, if they cannot: Triton has no e4m3 for older GPUs."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) >= ADA:
        return None
    return f"compiled blocks need a GPU of Ada, Hopper or later, not {torch.cuda.get_device_name(device)}"


def as_kept(model: nn.Module, stored: Mapping[str, Stored]) -> dict[str, Stored]:
    """Stored tensors under the names that their parts have in a quantised model: both are made of the same rows."""
    kept = dict(stored)
    for path, scheme in model.named_modules():
        if not isinstance(scheme, RowScales):
            continue
        parts = path.removesuffix(".0")  # where a parametrization keeps what it makes the weight of
        if whole := kept.pop(f"{parts.removesuffix('.parametrizations.weight')}.weight", None):
            for number, shape in enumerate((whole.shape, (whole.shape[0], 1))):
                part = Part(shape=shape, make=partial(scheme.part, number))
                kept[f"{parts}.original{number}"] = replace(whole, part=part)
    return kept
