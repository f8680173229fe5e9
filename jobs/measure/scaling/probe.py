"""What the ranks of a gang can do, found out in about a second: arithmetic, calls of a video's sizes, and the rest.

Legend: n tokens of a rank, d width, H heads, D head width, U x R Ulysses and Ring.
"""

import statistics
from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from jobs.predict.measured import Probe, ProbeRequest, Turn, fit, slowdown
from jobs.predict.seconds import laid_out_bytes, merged_bytes
from parallel.collectives import CallTime, Collective, sent_bytes
from parallel.group import own_device
from parallel.probe import probe_links, timed
from parallel.rank_group import RankGroup

WARM_UP, REPEATS = 3, 16
TURNS, OF_A_TURN = 8, 4  # of a block on rank 0 alone and on all ranks
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

    alone = [_median(work) if group.rank == 0 else 1.0 for work in (linear, attention)]
    calls = probe_links(request.layout, request.sizes(1), request.sizes(2)) if several else []
    return Probe(
        linear_flops_per_s=16 * tokens * request.width**2 / alone[0],
        attention_flops_per_s=4 * tokens**2 * request.width / alone[1],
        memory_bytes_per_s=_joint(request, group, calls) if group.sequence_size > 1 else _copied(request),
        together=slowdown([_turn(block, group) for _ in range(TURNS)]) if several else 1.0,
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


def _repeated(work: Work, warm_up: int = WARM_UP, repeats: int = REPEATS) -> list[float]:
    return [timed(work) for _ in range(warm_up + repeats)][warm_up:]


def _turn(work: Work, group: RankGroup) -> Turn:
    """Once on rank 0 alone, then on all ranks at the same time."""
    dist.barrier()
    alone = _repeated(work, 1, OF_A_TURN) if group.rank == 0 else [1.0]
    dist.barrier()
    own = torch.tensor(_repeated(work, 1, OF_A_TURN), device=own_device())
    each = [torch.empty_like(own) for _ in range(group.world_size)]
    dist.all_gather(each, own)
    return Turn(alone=alone, together=[seconds.tolist() for seconds in each])
