"""What the ranks of a gang can do, found out in about a second: arithmetic, memory, and calls of a video's sizes.

Legend: N tokens of a video, n of a rank, d width, H heads, D head width.
"""

import statistics
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch.nn import functional as F

from jobs.predict.measured import Probe, ProbeRequest
from parallel.group import own_device
from parallel.probe import probe_links, timed

WARM_UP, REPEATS = 3, 16
MOST_TOKENS = 4096  # that arithmetic is timed with; more take no other rate


def probe(request: ProbeRequest) -> Probe:
    """Every rank of the gang calls it at the same time; what rank 0 finds counts."""
    rank, world_size, device = (dist.get_rank(), dist.get_world_size(), own_device())
    linear, attention, memory = _works(request, device)

    def block() -> None:
        linear()
        attention()

    alone = [statistics.median(_repeated(work)) if rank == 0 else 0.0 for work in (linear, attention, block)]
    dist.barrier()
    together, memory_s = _slowest(_repeated(block), device), statistics.median(_repeated(memory))
    calls = probe_links(request.layout, request.sizes(1), request.sizes(2)) if world_size > 1 else []
    tokens = min(request.tokens, MOST_TOKENS)
    moved_bytes = 2 * tokens * request.width * request.number_bytes
    return Probe(
        linear_flops_per_s=16 * tokens * request.width**2 / alone[0] if rank == 0 else 0.0,
        attention_flops_per_s=4 * tokens**2 * request.width / alone[1] if rank == 0 else 0.0,
        memory_bytes_per_s=moved_bytes / memory_s,
        together=max(1.0, together / alone[2]) if rank == 0 and world_size > 1 else 1.0,
        calls=tuple(calls),
    )


Work = Callable[[], object]


def _works(request: ProbeRequest, device: torch.device) -> tuple[Work, Work, Work]:
    """What a block's linear layers, its attention, and laying out a tensor anew are like."""
    dtype, tokens, width = getattr(torch, request.dtype), min(request.tokens, MOST_TOKENS), request.width
    states = torch.randn(tokens, width, device=device).to(dtype)
    wide = torch.randn(4 * width, width, device=device).to(dtype) / width
    narrow = torch.randn(width, 4 * width, device=device).to(dtype) / width
    heads = states.view(1, tokens, request.heads, -1).transpose(1, 2).contiguous()  # [1, H, n, D]

    def linear() -> object:
        return F.linear(F.gelu(F.linear(F.layer_norm(states, (width,)), wide)), narrow)

    def attention() -> object:
        return F.scaled_dot_product_attention(heads, heads, heads)

    def memory() -> object:
        return heads.permute(2, 0, 1, 3).contiguous()

    return linear, attention, memory


def _repeated(work: Work) -> list[float]:
    return [timed(work) for _ in range(WARM_UP + REPEATS)][WARM_UP:]


def _slowest(seconds: list[float], device: torch.device) -> float:
    """The mean over repetitions of what each takes on its slowest rank, for which the others would wait."""
    own = torch.tensor(seconds, device=device)
    each = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(each, own)
    return float(torch.stack(each).amax(dim=0).mean())
