"""Joint attention over the ranks: xfuser's USP (Ulysses x Ring), with text tokens that every rank holds.

Legend: B batch, N local image tokens, L text tokens, H heads, D head width.
"""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import TYPE_CHECKING, Protocol

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from parallel import cpu
from parallel.collectives import CollectiveCounter
from parallel.kernels import Choice
from parallel.layout import Layout
from parallel.local_attention import Attention, backend_type

if TYPE_CHECKING:  # xfuser has to be prepared before it is imported
    from xfuser.config import EngineConfig

KEPT = "resca_kept_keys"  # what we hand to the kernel, in xfuser's settings for it


class Kernel(Protocol):
    """Of xfuser's registry: attention `[B, H, N, D]`, and its log-sum-exp `[B, H, N]` if it has one."""

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        dropout_p: float,
        is_causal: bool,
        attention_kwargs: dict[str, object] | None = None,
    ) -> tuple[Tensor, Tensor | None]: ...


@dataclass(frozen=True, kw_only=True)
class UspAttention:
    """xfuser's USP on the process groups that `start` made, with its collectives booked in the counter."""

    layout: Layout
    counter: CollectiveCounter
    kernels: Attention
    usp: Callable[..., Tensor]
    rank: int
    """Of those that share the tokens."""

    @property
    def collectives(self) -> str:
        """What it calls."""
        degrees = {"all_to_all": self.layout.ulysses, "all_gather": self.layout.ring}
        return " or ".join(name for name, degree in degrees.items() if degree > 1)

    def __call__(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        text_query: Tensor,
        text_key: Tensor,
        text_value: Tensor,
        pieces: list[int],
    ) -> tuple[Tensor, Tensor]:
        """Every local image token and every text token attends to all ranks' image tokens and to the text.

        Image tensors are `[B, H, N, D]`, text tensors `[B, H, L, D]` and the same on every rank; so are the outputs.
        Where `pieces`, the image tokens of each rank, differ, what is sent is filled up to the longest of them; the
        kernel never sees the keys and values that do so.
        """
        length = max(pieces)
        book_attention(self.counter, self.layout, query, text_query, length)
        filled = None
        if min(pieces) < length:
            filled = {KEPT: iter(kept_keys(self.layout, tuple(pieces), self.rank, query.device))}
        output = self.usp(
            *(lengthen(states, 2, length) for states in (query, key, value)),
            joint_query=text_query,
            joint_key=text_key,
            joint_value=text_value,
            joint_strategy="rear",
            backend=backend_type(self.kernels.kernel(query)),
            attention_kwargs=filled,
        )
        return output[:, :, : query.shape[2]], output[:, :, length:]


def lengthen(states: Tensor, dim: int, length: int) -> Tensor:
    """Fill a tensor up with zeros to a length along `dim`."""
    missing, behind = length - states.shape[dim], states.ndim - 1 - dim % states.ndim
    return F.pad(states, (0, 0) * behind + (0, missing)) if missing else states


@lru_cache(maxsize=8)
def kept_keys(layout: Layout, pieces: tuple[int, ...], rank: int, device: torch.device) -> list[tuple[Tensor, int]]:
    """The image keys that are real, and how many there are with the others, for each of the kernel's calls.

    Ring brings one Ulysses group's keys after another: call number i on ring rank r sees those of ring rank r - i.
    Neighbouring ranks form a Ulysses group.
    """
    length, calls = max(pieces), []
    for turn in range(layout.ring):
        group = (rank // layout.ulysses - turn) % layout.ring
        of_group = pieces[group * layout.ulysses : (group + 1) * layout.ulysses]
        places = [torch.arange(size) + number * length for number, size in enumerate(of_group)]
        calls.append((torch.cat(places).to(device), length * layout.ulysses))
    return calls


def _teach_kernels() -> None:
    """Wrap the kernels of xfuser's registry, once in a process."""
    from xfuser.core.distributed.attention_backend import ATTENTION_FUNCTION_REGISTRY

    for backend, kernel in ATTENTION_FUNCTION_REGISTRY.items():
        if not hasattr(kernel, KEPT):
            ATTENTION_FUNCTION_REGISTRY[backend] = _taught(kernel)


def _taught(kernel: Kernel) -> Kernel:
    """A kernel that skips keys which fill up, and gives the log-sum-exp `[B, H, N]`, if any, of its queries alone.

    SDPA_EFFICIENT gives that of a multiple of 32 queries on CUDA, with which Ring cannot merge.
    """

    @wraps(kernel)
    def attend(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        dropout_p: float,
        is_causal: bool,
        attention_kwargs: dict[str, object] | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        kept = (attention_kwargs or {}).get(KEPT)
        if isinstance(kept, Iterator):
            index, num_image_keys = next(kept)
            text = torch.arange(num_image_keys, key.shape[2], device=key.device)  # in Ring's last call
            index, attention_kwargs = torch.cat([index, text]), None
            key, value = key[:, :, index], value[:, :, index]
        output, log_sum_exp = kernel(
            query, key, value, dropout_p=dropout_p, is_causal=is_causal, attention_kwargs=attention_kwargs
        )
        return output, log_sum_exp if log_sum_exp is None else log_sum_exp[..., : query.shape[2]]

    setattr(attend, KEPT, True)
    return attend


def book_attention(counter: CollectiveCounter, layout: Layout, query: Tensor, text_query: Tensor, length: int) -> None:
    """Book what USP sends: Ulysses moves query with text, key, value and output; Ring gathers key and value.

    `length` is the longest piece, to which every rank fills up. Text keys and values never travel. A Ulysses rank holds
    U times the tokens and 1/U of the heads, so Ring's piece is as large as the local key and value.
    """
    image_bytes = query[:, :, :1].nbytes * length
    joint_bytes = image_bytes + text_query.numel() * text_query.element_size()
    if layout.ulysses > 1:
        for payload_bytes in (joint_bytes, image_bytes, image_bytes, joint_bytes):
            counter.book("all_to_all", payload_bytes, layout.ulysses)
    if layout.ring > 1:
        counter.book("all_gather", 2 * image_bytes, layout.ring)


def start(layout: Layout, counter: CollectiveCounter, choice: Choice) -> UspAttention:
    """Makes xfuser's groups on top of the default process group, whose size must be the layout's.

    Every rank calls this at the same time. xfuser keeps its groups in globals: one layout at a time in a process,
    until `stop`. ImportError if yunchang, on which xfuser's groups rest, is not installed. ValueError for a kernel that
    cannot do Ring.
    """
    kernels = Attention(choice, by_xfuser=True, ring=layout.ring > 1)
    on_cpu = dist.get_backend() == "gloo"
    if on_cpu:
        cpu.prepare()
    from xfuser.core.distributed import runtime_state
    from xfuser.model_executor.layers.usp import USP

    _only_errors_on_stdout()
    _teach_kernels()
    config = _engine_config(layout)
    _make_groups(layout, on_cpu)
    # USP reads its switches from here; `initialize_runtime_state` would want one of xfuser's own pipelines.
    runtime_state._RUNTIME = runtime_state.RuntimeState(config)
    rank = dist.get_rank() % layout.sequence_size
    return UspAttention(layout=layout, counter=counter, kernels=kernels, usp=USP, rank=rank)


def _only_errors_on_stdout() -> None:
    """xfuser's loggers print to stdout from DEBUG up, all through the handler of its root logger."""
    for handler in logging.getLogger("xfuser").handlers:
        handler.setLevel(logging.ERROR)


def _engine_config(layout: Layout) -> "EngineConfig":
    """xfuser's configuration: its defaults, and a kernel, so that it looks for none; USP is told one at each call."""
    from xfuser.config import xFuserArgs

    args = xFuserArgs(
        use_cfg_parallel=layout.cfg > 1,
        ulysses_degree=layout.ulysses,
        ring_degree=layout.ring,
        attention_backend="SDPA_FLASH",
    )
    return args.create_config()[0]


def _make_groups(layout: Layout, on_cpu: bool) -> None:
    from xfuser.core.distributed import init_distributed_environment, initialize_model_parallel

    rank, world_size, backend = dist.get_rank(), dist.get_world_size(), dist.get_backend()
    local_rank = rank if on_cpu else torch.cuda.current_device()
    init_distributed_environment(rank=rank, world_size=world_size, local_rank=local_rank, backend=backend)
    initialize_model_parallel(
        classifier_free_guidance_degree=layout.cfg,
        sequence_parallel_degree=layout.sequence_size,
        ulysses_degree=layout.ulysses,
        ring_degree=layout.ring,
        backend=backend,
    )


def stop() -> None:
    """Takes xfuser's groups down again; the default process group stays with whoever made it."""
    from xfuser.core.distributed import parallel_state
    from yunchang.globals import PROCESS_GROUP

    parallel_state.destroy_model_parallel()
    for group in (PROCESS_GROUP.ULYSSES_PG, PROCESS_GROUP.RING_PG, parallel_state._DIT):  # which it forgets
        dist.destroy_process_group(group)  # pyright: ignore[reportArgumentType]  # xfuser declares _DIT as another class
    # xfuser drops its world group only together with the default process group.
    parallel_state.get_world_group().destroy()
    parallel_state._WORLD = None
