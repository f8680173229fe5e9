"""The ranks that share one video's tokens: who holds which, and everything they say to each other.

Legend: B batch, N local image tokens (not the same on every rank), P ranks, L text tokens, H heads, D head width,
C channels.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from parallel import attention, deepspeed_ulysses
from parallel.attention import lengthen
from parallel.collectives import Collective, CollectiveCounter
from parallel.kernels import Choice
from parallel.layout import Layout
from parallel.local_attention import Attention
from parallel.rank_group import RankGroup
from parallel.single import LocalEngine, SingleGroup
from parallel.subgroups import make_subgroups, world_unbound
from parallel.watch import Watch

DEADLINE_S = 600.0
T = TypeVar("T")


class RankAttention(Protocol):
    """Joint attention over the ranks of one layout."""

    @property
    def collectives(self) -> str:
        """What it calls, for messages."""
        ...

    @property
    def kernels(self) -> Attention:
        """By what each rank attends."""
        ...

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
        """Image tensors are `[B, H, N, D]`, text tensors `[B, H, L, D]` and the same on every rank; so are the outputs.

        `pieces` are the image tokens of each rank.
        """
        ...


class AttentionEngine(Protocol):
    """A library that does it: a module with these two functions, which every rank calls at the same time."""

    def start(self, layout: Layout, counter: CollectiveCounter, choice: Choice) -> RankAttention:
        """Make what it needs on top of the default process group.

        ValueError for a layout that it cannot do, or a kernel that cannot do the layout.
        """
        ...

    def stop(self) -> None:
        """Take it down again."""
        ...


ENGINES: dict[str, AttentionEngine] = {"xfuser": attention, "deepspeed": deepspeed_ulysses}


def make_group(
    layout: Layout, *, engine: str = "xfuser", attention: Choice | None = None, deadline_s: float = DEADLINE_S
) -> RankGroup:
    """The group of a layout; every rank makes it at the same time, if there are several (see `SequenceGroup`)."""
    if layout.world_size == 1:
        return SingleGroup(attention)
    return SequenceGroup(layout, engine=engine, attention=attention, deadline_s=deadline_s)


class SequenceGroup:
    """Sequence parallelism on the default process group (gloo on CPU, NCCL on CUDA), which the caller has made.

    Every rank makes it at the same time, on CUDA after `torch.cuda.set_device`. One at a time in a process.
    ValueError if the process group has another size than the layout, or if the engine, xfuser (Ulysses x Ring) or
    deepspeed (Ulysses), or the attention kernel cannot do the layout. A collective that the others do not come to
    within the deadline, seconds, raises `parallel.watch.RankLost`, which names them.
    """

    def __init__(
        self,
        layout: Layout,
        *,
        engine: str = "xfuser",
        counter: CollectiveCounter | None = None,
        attention: Choice | None = None,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        if layout.world_size != dist.get_world_size():
            raise ValueError(
                f"{layout.words} needs {layout.world_size} ranks, but the process group has {dist.get_world_size()}."
            )
        self.layout = layout
        self.part, self.sequence_rank = divmod(dist.get_rank(), layout.sequence_size)
        self.num_parts, self.sequence_size = layout.cfg, layout.sequence_size
        self.pieces: list[int] = []
        self.counter = CollectiveCounter() if counter is None else counter
        self.rank = dist.get_rank()
        self.world_size = layout.world_size
        self.device = own_device()
        shares_tokens = layout.sequence_size > 1 or layout.world_size == 1
        self._engine = ENGINES[engine] if shares_tokens else LocalEngine()
        with world_unbound():
            self._attention = self._engine.start(layout, self.counter, attention or Choice())
            self._sequence, self._counterparts = make_subgroups(layout)
        self._watch = Watch(deadline_s, self.device)

    @property
    def num_ended(self) -> int:
        """The collectives that have come to their end, here or on the GPU."""
        return self._watch.num_ended

    @property
    def overdue(self) -> str | None:
        """On CUDA: one sentence on a collective that the others did not come to within the deadline; else None."""
        return self._watch.overdue

    def set_deadline(self, deadline_s: float) -> None:
        """The seconds that a collective may wait for its ranks from now on; between two collectives."""
        self._watch.set_deadline(deadline_s)

    def divide(self, pieces: list[int]) -> None:
        """Give each rank so many tokens from now on; they may differ. Every rank calls it with the same numbers.

        ValueError if they are not one for each rank, or if one is not positive.
        """
        if len(pieces) != self.sequence_size or min(pieces) < 1:
            raise ValueError(f"{self.sequence_size} ranks need as many numbers of tokens, all positive, not {pieces}.")
        self.pieces = pieces

    def shard(self, tokens: Tensor) -> Tensor:
        """This rank's contiguous piece `[B, N, C]` of all tokens, as `divide` said; ValueError for another number."""
        if tokens.shape[1] != sum(self.pieces):
            raise ValueError(f"{sum(self.pieces)} tokens were divided among the ranks, not {tokens.shape[1]}.")
        return tokens.split(self.pieces, dim=1)[self.sequence_rank]

    def gather(self, values: Tensor, sizes: list[int] | None = None, dim: int = 1) -> Tensor:
        """The ranks' pieces, of `sizes` along `dim` (by default, their tokens), joined in rank order on every rank.

        What is sent is filled up to the longest piece, and cut again.
        """
        sizes = sizes or self.pieces
        if self.sequence_size == 1:
            return values
        piece = lengthen(values.to(self.device), dim, max(sizes))
        pieces = self._gathered(piece, self.sequence_size, self._sequence)
        whole = torch.cat([piece.narrow(dim, 0, size) for piece, size in zip(pieces, sizes, strict=True)], dim=dim)
        return whole.to(values.device)

    def gather_from_all(self, value: Tensor) -> list[Tensor]:
        """What every rank of the video holds, of one shape, in rank order on every rank."""
        return [each.to(value.device) for each in self._gathered(value.to(self.device), self.world_size, None)]

    def exchange(self, values: Tensor) -> list[Tensor]:
        """What the ranks with the same tokens in the other parts hold, and this one, in the order of the parts."""
        if self.num_parts == 1:
            return [values]
        found = self._gathered(values.to(self.device), self.num_parts, self._counterparts)
        return [each.to(values.device) for each in found]

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, text_query: Tensor, text_key: Tensor, text_value: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Joint attention of local image tokens `[B, H, N, D]` and text `[B, H, L, D]` to all tokens and the text.

        The text is the same on every rank, and so is its output, up to rounding.
        """
        with self._watch.over(self._attention.collectives):
            return self._attention(query, key, value, text_query, text_key, text_value, self.pieces)

    def total(self, values: Tensor) -> Tensor:
        """The sum over the ranks, element by element, the same on every rank; `values` stay as they are."""
        if self.sequence_size == 1:
            return values
        summed = values.to(self.device, copy=True).contiguous()
        with self._collective("all_reduce", _num_bytes(summed), self.sequence_size):
            dist.all_reduce(summed, group=self._sequence)
        return summed.to(values.device)

    def broadcast(self, value: T | None) -> T:
        """What rank 0 holds, on every rank; the others pass None. Tensors arrive on this group's device.

        `value` may be a tensor, a number, a string, or lists, tuples and dictionaries of them.
        """
        packed = _pack(value if self.rank == 0 else None).to(self.device)
        size = self._from_rank_0(torch.tensor(packed.numel(), device=self.device))
        buffer = packed if self.rank == 0 else packed.new_empty(int(size))
        received = io.BytesIO(self._from_rank_0(buffer).cpu().numpy().tobytes())
        return torch.load(received, map_location=self.device, weights_only=True)

    def send(self, values: Tensor) -> Callable[[], None]:
        """Begin to send a tensor to rank 0, which receives it; what is returned waits until it has arrived."""
        values = values.to(self.device).contiguous()
        self.counter.book("send", _num_bytes(values), self.world_size)
        work = dist.isend(values, dst=0)

        def wait() -> None:
            assert work is not None
            with self._watch.over("send"):
                work.wait()

        return wait

    def receive(self, rank: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """On rank 0: the next tensor that a rank sends, of this shape and type."""
        values = torch.empty(shape, dtype=dtype, device=self.device)
        with self._watch.over(f"receive from rank {rank}"):
            dist.recv(values, src=rank)
        return values

    def mark(self, kind: str, step: int | None = None, left: int | None = None) -> None:
        """Name the kind of step that follows, its number, counted from 1, and how many follow it."""
        self.counter.mark(kind)
        self._attention.kernels.at_step(step, left)
        self._watch.step = kind if step is None else f"{kind} step {step}"

    def close(self) -> None:
        """Takes the subgroups down; the default process group stays."""
        self._watch.close()
        for group in (self._sequence, self._counterparts):
            if group is not None:
                dist.destroy_process_group(group)
        self._engine.stop()

    def _from_rank_0(self, buffer: Tensor) -> Tensor:
        with self._collective("broadcast", _num_bytes(buffer) if self.rank == 0 else 0, self.world_size):
            dist.broadcast(buffer, src=0)
        return buffer

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Where the block fails by a collective that others called for it: RankLost, as if it were one of ours."""
        with self._watch.guard():
            yield

    def expect(self, collective: Collective) -> None:
        """From now on, until `arrived`, this rank waits in a collective that others have called, and booked, for it."""
        self._watch.wait_in(collective)

    def arrived(self) -> None:
        """The expected collective is over."""
        self._watch.waiting_in = ""

    def _gathered(self, value: Tensor, num_ranks: int, group: dist.ProcessGroup | None) -> list[Tensor]:
        """What each rank of a group holds; None for all."""
        own = value.contiguous()
        values = [torch.empty_like(own) for _ in range(num_ranks)]
        with self._collective("all_gather", _num_bytes(own), num_ranks):
            dist.all_gather(values, own, group=group)
        return values

    @contextmanager
    def _collective(self, collective: Collective, payload_bytes: int, num_ranks: int) -> Iterator[None]:
        """The block is a collective of so many ranks: booked, and with a deadline."""
        self.counter.book(collective, payload_bytes, num_ranks)
        with self._watch.over(collective):
            yield


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def own_device() -> torch.device:
    """Where this rank's tensors have to lie for the default process group to send them."""
    on_cpu = dist.get_backend() == "gloo"
    return torch.device("cpu") if on_cpu else torch.device("cuda", torch.cuda.current_device())


def _pack(value: object) -> Tensor:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)
