"""What xfuser 0.7 needs to run without an accelerator. Applied on CPU gangs only; each step says why.

xfuser's distributed code itself is free of CUDA calls (all its collectives go through torch.distributed), but it asks
for an accelerator when it is imported and when it decides whether Ulysses and Ring groups make sense.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def prepare() -> None:
    """Imports xfuser and makes it serve CPU tensors over gloo. Changes this process's xfuser; may be called again."""
    with _toolkit_version_known():
        import xfuser.core.distributed  # noqa: F401
    _resolve_devices_to_cpu()
    _allow_ulysses_and_ring()
    _register_cpu_attention()


@contextmanager
def _toolkit_version_known() -> Iterator[None]:
    """`xfuser.envs` compares the CUDA version while it is imported, and raises in a build of torch that has none.

    The version only has to be above its floor of 11.3, so a present-day one is shown during the import.
    """
    if torch.version.cuda or torch.version.hip:
        yield
        return
    torch.version.cuda = "13.0"
    try:
        yield
    finally:
        torch.version.cuda = None


def _resolve_devices_to_cpu() -> None:
    """xfuser asks how torch was built, not what the machine has: a CUDA build on a machine without GPU would fail."""
    from xfuser import envs

    envs._is_cuda = envs._is_hip = lambda: False


def _allow_ulysses_and_ring() -> None:
    """xfuser takes yunchang, which keeps the Ulysses and Ring groups, as missing where CUDA is unavailable.

    Without it the configuration refuses degrees above 1, and USP would attend to local tokens only.
    """
    from xfuser.config import config
    from xfuser.core.distributed import group_coordinator, parallel_state
    from xfuser.model_executor.layers import usp
    from yunchang.globals import PROCESS_GROUP

    config.HAS_LONG_CTX_ATTN = parallel_state.HAS_LONG_CTX_ATTN = group_coordinator.HAS_LONG_CTX_ATTN = True
    usp.PROCESS_GROUP = PROCESS_GROUP


def _register_cpu_attention() -> None:
    """xfuser's SDPA_FLASH calls torch's CUDA kernel; torch's CPU twin returns the log-sum-exp that Ring merges by."""
    from xfuser.core.distributed.attention_backend import AttentionBackendType, register_attention_function

    register_attention_function(AttentionBackendType.SDPA_FLASH)(_flash_attention)


def _flash_attention(
    query: Tensor, key: Tensor, value: Tensor, dropout_p: float, is_causal: bool, attention_kwargs: dict | None = None
) -> tuple[Tensor, Tensor]:
    """Attention `[B, H, N, D]` and its log-sum-exp `[B, H, N]`; the signature is that of xfuser's registry."""
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(query, key, value, dropout_p, is_causal)
