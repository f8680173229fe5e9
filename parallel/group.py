"""The ranks that share one video's tokens: who holds which, and everything they say to each other.

Legend: B batch, N local image tokens, P ranks, L text tokens, H heads, D head width, C channels.
"""

import io
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from parallel import attention
from parallel.layout import Layout
from parallel.ledger import Ledger


class SequenceGroup:
    """Sequence parallelism on the default process group (gloo on CPU, NCCL on CUDA), which the caller has made.

    Every rank makes it at the same time, on CUDA after `torch.cuda.set_device`. One at a time in a process.
    ValueError if the process group has another size than the layout.
    """

    def __init__(self, layout: Layout, *, ledger: Ledger | None = None) -> None:
        if layout.world_size != dist.get_world_size():
            raise ValueError(
                f"ulysses={layout.ulysses} x ring={layout.ring} needs {layout.world_size} ranks, "
                f"but the process group has {dist.get_world_size()}."
            )
        self.layout = layout
        self.ledger = Ledger() if ledger is None else ledger
        self.rank = dist.get_rank()
        self.world_size = layout.world_size
        on_cpu = dist.get_backend() == "gloo"
        self.device = torch.device("cpu") if on_cpu else torch.device("cuda", torch.cuda.current_device())
        self._attention = attention.start(layout, self.ledger)

    def shard(self, tokens: Tensor) -> Tensor:
        """This rank's contiguous piece `[B, N, C]` of all tokens `[B, N * P, C]`; ValueError if they do not divide."""
        if tokens.shape[1] % self.world_size:
            raise ValueError(f"{tokens.shape[1]} tokens do not divide into {self.world_size} equal pieces.")
        return tokens.tensor_split(self.world_size, dim=1)[self.rank]

    def gather(self, tokens: Tensor, dim: int = 1) -> Tensor:
        """The ranks' pieces, of one shape, joined in rank order along `dim`, on every rank."""
        piece = tokens.to(self.device).contiguous()
        pieces = [torch.empty_like(piece) for _ in range(self.world_size)]
        self.ledger.book("all_gather", _num_bytes(piece), self.world_size)
        dist.all_gather(pieces, piece)
        return torch.cat(pieces, dim=dim).to(tokens.device)

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, text_query: Tensor, text_key: Tensor, text_value: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Joint attention of local image tokens `[B, H, N, D]` and text `[B, H, L, D]` to all tokens and the text.

        The text is the same on every rank, and so is its output, up to rounding.
        """
        return self._attention(query, key, value, text_query, text_key, text_value)

    def total(self, values: Tensor) -> Tensor:
        """The sum over the ranks, element by element, the same on every rank; `values` stay as they are."""
        summed = values.to(self.device, copy=True).contiguous()
        self.ledger.book("all_reduce", _num_bytes(summed), self.world_size)
        dist.all_reduce(summed)
        return summed.to(values.device)

    def broadcast(self, value: Any = None) -> Any:
        """What rank 0 holds, on every rank; the others pass nothing. Tensors arrive on this group's device.

        `value` may be a tensor, a number, a string, or lists, tuples and dictionaries of them.
        """
        packed = _pack(value if self.rank == 0 else None).to(self.device)
        size = self._from_rank_0(torch.tensor(packed.numel(), device=self.device))
        buffer = packed if self.rank == 0 else packed.new_empty(int(size))
        return _unpack(self._from_rank_0(buffer), self.device)

    def mark(self, kind: str) -> None:
        """Name the kind of step that follows, for the ledger of collectives."""
        self.ledger.mark(kind)

    def close(self) -> None:
        """Takes the subgroups down; the default process group stays."""
        attention.stop()

    def _from_rank_0(self, buffer: Tensor) -> Tensor:
        self.ledger.book("broadcast", _num_bytes(buffer) if self.rank == 0 else 0, self.world_size)
        dist.broadcast(buffer, src=0)
        return buffer


def _num_bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _pack(value: Any) -> Tensor:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)


def _unpack(packed: Tensor, device: torch.device) -> Any:
    return torch.load(io.BytesIO(packed.cpu().numpy().tobytes()), map_location=device, weights_only=True)
