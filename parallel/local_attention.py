"""Attention on one device, by the kernel that was asked for or the fastest that there is.

Legend: B batch, H heads, N queries, M keys, D head width.
"""

import warnings
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from parallel.kernels import AUTO, KERNELS, Choice, best, installed

if TYPE_CHECKING:  # it takes seconds to import
    from xfuser.core.distributed.attention_backend import AttentionBackendType

HALF = (torch.bfloat16, torch.float16)
PROBED = (1, 2, 64)  # batch, heads and tokens of a trial


class Attention:
    """The kernel that attends at present.

    Args:
        by_xfuser: whether xfuser calls it, which shares tokens among ranks.
        ring: whether Ring merges what it gives.

    Raises:
        ValueError: for a kernel that cannot do Ring.
    """

    def __init__(self, choice: Choice | None = None, *, by_xfuser: bool = False, ring: bool = False) -> None:
        self.choice, self.by_xfuser, self.ring = choice or Choice(), by_xfuser, ring
        self.choice.check(ring=ring)
        self.exactly = False

    def at_step(self, step: int | None, left: int | None) -> None:
        """Step number `step`, counted from 1, follows, and after it `left` more; nothing changes where that is None."""
        if step is not None and left is not None:
            self.exactly = min(step - 1, left) < self.choice.exact_steps

    def kernel(self, states: Tensor) -> str:
        """Its name, for queries like these."""
        if self.choice.name != AUTO and not self.exactly:
            return self.choice.name
        return _best(states.device, states.dtype, self.by_xfuser, self.ring)

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Queries `[B, H, N, D]` attend to keys and values `[B, H, M, D]`; without ranks to share with."""
        name = self.kernel(query)
        backends = KERNELS[name].sdpa
        if backends is None:
            return _by_xfuser(name, query, key, value)
        if not backends:
            return F.scaled_dot_product_attention(query, key, value)
        # What `auto` takes may not do for every width of heads; then PyTorch chooses among the others.
        others = () if name == self.choice.name else ("FLASH_ATTENTION", "EFFICIENT_ATTENTION", "MATH")
        order = [getattr(SDPBackend, backend) for backend in dict.fromkeys((*backends, *others))]
        with sdpa_kernel(order, set_priority=True):
            return F.scaled_dot_product_attention(query, key, value)


@lru_cache(maxsize=32)
def _best(device: torch.device, dtype: torch.dtype, by_xfuser: bool, ring: bool) -> str:
    if device.type == "cuda" and torch.version.hip:
        return _best_of_rocm(by_xfuser, ring)
    capability = torch.cuda.get_device_capability(device) if device.type == "cuda" else None
    return best(capability, half=dtype in HALF, by_xfuser=by_xfuser, ring=ring, has=installed())


def _best_of_rocm(by_xfuser: bool, ring: bool) -> str:
    if by_xfuser and not ring and "aiter" in installed():
        return "aiter"
    return "flash" if by_xfuser else "sdpa"


def _by_xfuser(name: str, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """By a kernel of another package, which xfuser knows how to call."""
    from xfuser.core.distributed.attention_backend import ATTENTION_FUNCTION_REGISTRY

    return ATTENTION_FUNCTION_REGISTRY[backend_type(name)](query, key, value, dropout_p=0.0, is_causal=False)[0]


def backend_type(name: str) -> "AttentionBackendType":
    """The kernel in xfuser's terms."""
    from xfuser.core.distributed.attention_backend import AttentionBackendType

    return AttentionBackendType[KERNELS[name].xfuser]


def obstacle(choice: Choice, device: torch.device, dtype: torch.dtype, head_width: int = 64) -> str | None:
    """Why a kernel cannot attend here, found by trying it; None if it can."""
    if missing := choice.missing:
        return missing
    states = torch.zeros(*PROBED, head_width, device=device, dtype=dtype)
    try:
        with warnings.catch_warnings(action="ignore"):
            Attention(choice)(states, states, states)
    except (RuntimeError, ImportError, NotImplementedError, AssertionError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        return (
            f"{choice.name} attention does not work on {device.type} in {str(dtype).removeprefix('torch.')}: {reason}"
        )
    return None
