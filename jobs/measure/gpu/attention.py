"""PyTorch's attention kernels, one at a time."""

import warnings

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from caching.group import LocalGroup
from jobs.measure.full_size import DTYPE

KERNELS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}


class KernelGroup(LocalGroup):
    """One process whose dense steps attend by the kernel of that name."""

    def __init__(self, kernel: str) -> None:
        self.kernel = KERNELS[kernel]

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, text_query: Tensor, text_key: Tensor, text_value: Tensor
    ) -> tuple[Tensor, Tensor]:
        with sdpa_kernel(self.kernel):
            return super().attend(query, key, value, text_query, text_key, text_value)


def has_kernel(kernel: str, head_width: int, device: torch.device) -> bool:
    """Whether the kernel attends on this device, to heads of this width."""
    states = torch.zeros(1, 2, 64, head_width, device=device, dtype=DTYPE)
    try:
        with warnings.catch_warnings(action="ignore"), sdpa_kernel(KERNELS[kernel]):
            F.scaled_dot_product_attention(states, states, states)
    except RuntimeError:
        return False
    return True
