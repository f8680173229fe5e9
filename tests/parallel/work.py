"""What the ranks of the tests do: functions that a gang runs, and the dense reference they are compared with."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from parallel.group import SequenceGroup
from parallel.kernels import Choice
from parallel.layout import Layout

# What torch's functional collectives do besides communicating.
LOCAL_OPERATIONS = ("::wait_tensor", "::_wrap_tensor_autograd")

BATCH, HEADS, TOKENS, TEXT, WIDTH = 2, 4, 16, 6, 8


def qkv(num_tokens: int, seed: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value `[B, H, num_tokens, D]`."""
    generator = torch.Generator().manual_seed(seed)
    query, key, value = torch.randn(3, BATCH, HEADS, num_tokens, WIDTH, generator=generator).to(dtype).unbind()
    return query, key, value


def dense_attention(dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """What one process computes that holds all image tokens: image and text outputs."""
    joint = (torch.cat(pair, dim=2) for pair in zip(qkv(TOKENS, 0, dtype), qkv(TEXT, 1, dtype), strict=True))
    output = F.scaled_dot_product_attention(*joint)
    return output[:, :, :TOKENS], output[:, :, TOKENS:]


def attend(
    group: SequenceGroup, dtype: torch.dtype = torch.float32, sizes: list[int] | None = None
) -> tuple[Tensor, Tensor]:
    """The same attention, by this rank's piece of the image tokens; all of one size unless `sizes` are given."""
    group.divide(sizes or [TOKENS // group.world_size] * group.world_size)
    pieces = (all_tokens.split(group.pieces, dim=2)[group.rank] for all_tokens in qkv(TOKENS, 0, dtype))
    image, text = group.attend(*pieces, *qkv(TEXT, 1, dtype))
    return image.clone(), text.clone()


def attend_by(group: SequenceGroup, kernel: str) -> tuple[Tensor, Tensor]:
    """The same attention by the kernel of that name."""
    kernels = group._attention.kernels
    before, kernels.choice = kernels.choice, Choice(name=kernel)
    try:
        return attend(group)
    finally:
        kernels.choice = before


def kernels_of_xfuser(group: SequenceGroup) -> set[str]:
    """The names that xfuser has for kernels that can be called."""
    from xfuser.core.distributed.attention_backend import ATTENTION_FUNCTION_REGISTRY

    return {backend.name for backend in ATTENTION_FUNCTION_REGISTRY}


def shard_and_gather(group: SequenceGroup, tokens: Tensor, sizes: list[int]) -> tuple[Tensor, Tensor]:
    group.divide(sizes)
    piece = group.shard(tokens)
    return piece.clone(), group.gather(piece)


def gather_own(group: SequenceGroup, shape: tuple[int, ...], dtype: torch.dtype, dim: int) -> Tensor:
    piece = torch.full(shape, group.rank, dtype=dtype)
    return group.gather(piece, [shape[dim]] * group.world_size, dim=dim)


def total_of_ranks(group: SequenceGroup) -> tuple[Tensor, Tensor]:
    values = torch.tensor([1.0, float(group.rank)])
    return group.total(values), values


def broadcast_from_rank_0(group: SequenceGroup, value: Any) -> Any:
    return group.broadcast(value if group.rank == 0 else None)


def every_collective(group: SequenceGroup) -> None:
    group.mark("dense")
    attend(group)
    group.gather(torch.zeros(1, 3, 5), [3] * group.world_size)
    group.gather(torch.zeros(2, 3, dtype=torch.int64), [2] * group.world_size, dim=0)
    group.total(torch.zeros(3))
    group.mark("sparse")
    group.shard(torch.zeros(1, TOKENS, 5))  # as attend has divided them
    group.mark("encode")
    group.broadcast({"text": torch.zeros(7)} if group.rank == 0 else None)
    group.mark("decode")
    if group.rank > 0:
        group.send(torch.zeros(3, group.rank))()
    else:
        for rank in range(1, group.world_size):
            group.receive(rank, (3, rank), torch.float32)


def booked_and_seen(group: SequenceGroup) -> tuple[list[dict], list[dict], list[tuple[str, int, int]]]:
    """The counter's rows and details of `every_collective`, and the calls that really reached torch.distributed."""
    group.counter.clear()
    with SeenCollectives() as seen:
        every_collective(group)
    return group.counter.rows(), group.counter.details(), seen.calls


def restart(group: SequenceGroup) -> tuple[Tensor, Tensor]:
    """Takes the group down, makes a second one in the same process and attends with it."""
    group.close()
    return attend(SequenceGroup(group.layout))


def raises(group: SequenceGroup, function: Callable[[SequenceGroup], Any]) -> str:
    try:
        function(group)
    except ValueError as error:
        return str(error)
    return ""


def log_sum_exp_shape(group: SequenceGroup, num_queries: int) -> tuple[int, ...]:
    """Of what xfuser's kernel for float32 on CUDA gives, on the meta device."""
    from xfuser.core.distributed.attention_backend import ATTENTION_FUNCTION_REGISTRY, AttentionBackendType

    query, key = (torch.empty(1, 2, count, 8, device="meta") for count in (num_queries, 40))
    kernel = ATTENTION_FUNCTION_REGISTRY[AttentionBackendType.SDPA_EFFICIENT]
    return tuple(kernel(query, key, key, dropout_p=0.0, is_causal=False)[1].shape)


def shard_of_seven(group: SequenceGroup) -> None:
    group.divide([4] * group.world_size)
    group.shard(torch.zeros(1, 7, 2))


def divide_by_nobody(group: SequenceGroup) -> None:
    group.divide([0] * group.world_size)


def group_of_two(group: SequenceGroup) -> None:
    SequenceGroup(Layout(ulysses=2))


def pretend_a_cuda_build() -> None:
    """The usual wheel of torch for Linux: built for CUDA, here on a machine without a GPU."""
    torch.version.cuda = "13.0"


class SeenCollectives(TorchDispatchMode):
    """Records (collective, bytes put in by this rank, number of ranks) of every call that reaches torch's c10d."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, int, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        name = func._schema.name
        if name.startswith("_c10d_functional::") and not name.endswith(LOCAL_OPERATIONS):
            self.calls.append(_functional_call(name, args))
        elif name.startswith("c10d::") and name != "c10d::recv_":  # It puts nothing in.
            self.calls.append(_plain_call(name, args))
        return func(*args, **(kwargs or {}))


def _functional_call(name: str, args: tuple) -> tuple[str, int, int]:
    """xfuser's calls: the tensor comes first, the name of the process group last."""
    collective = {"all_to_all_single": "all_to_all", "all_gather_into_tensor": "all_gather"}[name.split("::")[1]]
    num_ranks = dist.distributed_c10d._resolve_process_group(args[-1]).size()
    return collective, args[0].nbytes, num_ranks


def _plain_call(name: str, args: tuple) -> tuple[str, int, int]:
    """Calls of torch.distributed itself, all on the default group."""
    collective = {
        "alltoall_base_": "all_to_all",
        "allgather_": "all_gather",
        "_allgather_base_": "all_gather",
        "allreduce_": "all_reduce",
        "broadcast_": "broadcast",
        "send": "send",
    }[name.split("::")[1]]
    put_in = args[1] if collective in ("all_to_all", "all_gather") else args[0]  # The first is what comes out.
    num_bytes = put_in.nbytes if isinstance(put_in, Tensor) else put_in[0].nbytes
    if collective == "broadcast" and dist.get_rank() > 0:
        num_bytes = 0
    return collective, num_bytes, dist.get_world_size()
