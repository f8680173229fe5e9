"""Seconds of calls between the ranks of a layout: a short measurement of the links that a video would go over.

Legend: P ranks of a group.
"""

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as collectives

from parallel.collectives import CallTime, Collective, sent_bytes
from parallel.group import own_device
from parallel.layout import Layout
from parallel.subgroups import own_group, world_unbound

WARM_UP, REPEATS = 3, 12


def probe_links(layout: Layout, exchanged: Sequence[int], passed_on: Sequence[int]) -> list[CallTime]:
    """What calls take by the size of what a rank puts in, bytes; every rank of the layout calls it at the same time.

    `exchanged` goes all-to-all through each Ulysses group, `passed_on` to all in each group of those ranks that stand
    at the same place of theirs: as Ring and guidance in parallel do it. Groups of one rank are left out. Calls are
    those of xfuser and of torch's ring attention, on the backend of the default process group; the ranks of all groups
    call at once, so that what they share of a link counts.
    """
    found = []
    with _groups(layout) as (ulysses, others):
        for size in exchanged if layout.ulysses > 1 else ():
            found.append(_time("all_to_all", size, layout.ulysses, ulysses))
        for size in passed_on if layout.world_size > layout.ulysses else ():
            found.append(_time("all_gather", size, layout.world_size // layout.ulysses, others))
    return found


@contextmanager
def _groups(layout: Layout) -> Iterator[tuple[dist.ProcessGroup, dist.ProcessGroup]]:
    """This rank's Ulysses group, and that across those groups."""
    size, degree = layout.world_size, layout.ulysses
    with world_unbound():
        within = own_group([range(first, first + degree) for first in range(0, size, degree)])
        across = own_group([range(place, size, degree) for place in range(degree)])
    try:
        yield within, across
    finally:
        for group in (within, across):
            dist.destroy_process_group(group)


def _time(collective: Collective, size: int, num_ranks: int, group: dist.ProcessGroup) -> CallTime:
    """`size` is cut to equal pieces for each rank."""
    payload = torch.zeros(size // num_ranks * num_ranks, dtype=torch.uint8, device=own_device())
    call = {"all_to_all": _all_to_all, "all_gather": _all_gather}[collective]
    dist.barrier()
    seconds = [timed(lambda: call(payload, group)) for _ in range(WARM_UP + REPEATS)][WARM_UP:]
    return CallTime(
        collective=collective,
        bytes_sent=sent_bytes(collective, payload.numel(), num_ranks),
        seconds=statistics.median(seconds),
    )


def _all_to_all(payload: torch.Tensor, group: dist.ProcessGroup) -> None:
    collectives.wait_tensor(collectives.all_to_all_single(payload, None, None, group))


def _all_gather(payload: torch.Tensor, group: dist.ProcessGroup) -> None:
    collectives.wait_tensor(collectives.all_gather_single(payload, 0, group))


def timed(work: Callable[[], object]) -> float:
    """Seconds of a piece of work; what a GPU has still to do counts."""
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started
