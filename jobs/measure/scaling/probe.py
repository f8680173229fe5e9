"""What the ranks of a gang can do, found out in about a second: arithmetic, calls of a video's sizes, and the rest.

Legend: n tokens of a rank, d width, H heads, D head width, U x R Ulysses and Ring.
"""

import statistics
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from jobs.predict.measured import Probe, ProbeRequest, fit
from jobs.predict.seconds import laid_out_bytes, merged_bytes
from parallel.collectives import CallTime, Collective, sent_bytes
from parallel.group import own_device
from parallel.probe import probe_links, timed
from parallel.rank_group import RankGroup

WARM_UP, REPEATS = 3, 16
MOST_TOKENS = 4096  # that arithmetic is timed with; more take no other rate
TEXT_TOKENS = 16
LEAST_PART = 0.01  # of joint attention, for what is neither attention nor calls
Work = Callable[[], object]


def probe(request: ProbeRequest, group: RankGroup) -> Probe:
    """Every rank of the gang calls it at the same time; what rank 0 finds counts."""
    tokens, several = min(request.tokens, MOST_TOKENS), group.world_size > 1
    linear, attention = _linear(request, tokens), _attention(*[_random(request, request.heads, tokens)] * 3)

    def block() -> None:
        linear()
        attention()

    alone = [_median(work) if group.rank == 0 else 1.0 for work in (linear, attention, block)]
    dist.barrier()
    together = _slowest(_repeated(block))
    calls = probe_links(request.layout, request.sizes(1), request.sizes(2)) if several else []
    return Probe(
        linear_flops_per_s=16 * tokens * request.width**2 / alone[0],
        attention_flops_per_s=4 * tokens**2 * request.width / alone[1],
        memory_bytes_per_s=_joint(request, group, calls) if group.sequence_size > 1 else _copied(request),
        together=max(1.0, together / alone[2]) if several else 1.0,
        calls=tuple(calls),
    )


def _joint(request: ProbeRequest, group: RankGroup, calls: list[CallTime]) -> float:
    """Bytes a second by what joint attention takes beside its calls and its kernel: laying out anew, and merging."""
    layout, heads, tokens = request.layout, request.heads, request.tokens
    group.divide([tokens] * layout.sequence_size)
    image, text = _random(request, heads, tokens), _random(request, heads, TEXT_TOKENS)
    local = _attention(*[_random(request, heads // layout.ulysses, tokens * layout.ulysses)] * 3)
    dist.barrier()
    joint_s = _median(lambda: group.attend(image, image, image, text, text, text))
    kernel_s = layout.ring * _median(local)
    size = request.tokens * request.width * request.number_bytes
    beside_s = 4 * _call_s("all_to_all", size, layout.ulysses, calls)
    passed_s = (layout.ring - 1) * _call_s("all_gather", 2 * size, 2, calls)
    beside_s += max(0.0, passed_s - kernel_s * (layout.ring - 1) / layout.ring)
    moved_bytes = laid_out_bytes(layout, request.number_bytes) + merged_bytes(layout)
    rest_s = max(LEAST_PART * joint_s, joint_s - kernel_s - beside_s)
    return moved_bytes * tokens * request.width / rest_s


def _call_s(collective: Collective, payload_bytes: int, num_ranks: int, calls: list[CallTime]) -> float:
    """By what was fitted to the calls; 0 where there were none."""
    own = [call for call in calls if call.collective == collective]
    if not own:
        return 0.0
    bytes_per_s, call_s = fit(own)
    return call_s + sent_bytes(collective, payload_bytes, num_ranks) / bytes_per_s


def _copied(request: ProbeRequest) -> float:
    """Bytes a second of laying out a tensor anew."""
    states = _random(request, request.heads, request.tokens)
    return 2 * states.nbytes / _median(lambda: states.permute(2, 0, 1, 3).contiguous())


def _random(request: ProbeRequest, heads: int, tokens: int) -> Tensor:
    """`[1, H, n, D]`."""
    states = torch.randn(1, heads, tokens, request.width // request.heads)
    return states.to(own_device(), getattr(torch, request.dtype))


def _linear(request: ProbeRequest, tokens: int) -> Work:
    """What the feed-forward part of a block is like: 16 n d^2 FLOPs."""
    width = request.width
    states = _random(request, request.heads, tokens).transpose(1, 2).reshape(tokens, width)
    wide = _random(request, request.heads, 4 * width).view(4 * width, width) / width
    return lambda: F.linear(F.gelu(F.linear(F.layer_norm(states, (width,)), wide)), wide.T)


def _attention(query: Tensor, key: Tensor, value: Tensor) -> Work:
    return lambda: F.scaled_dot_product_attention(query, key, value)


def _median(work: Work) -> float:
    return statistics.median(_repeated(work))


def _repeated(work: Work) -> list[float]:
    return [timed(work) for _ in range(WARM_UP + REPEATS)][WARM_UP:]


def _slowest(seconds: list[float]) -> float:
    """The mean over repetitions of what each takes on its slowest rank, for which the others would wait."""
    own = torch.tensor(seconds, device=own_device())
    each = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(each, own)
    return float(torch.stack(each).amax(dim=0).mean())
