"""Whether a video's numbers are finite: noted on the device at each step, and read once, when the loop is over."""

from typing import ClassVar

import torch
from torch import Tensor

from cluster.failure import FailureKind
from jobs.errors import BadInput
from parallel.rank_group import RankGroup

REMEDIES = {
    torch.float16: "try bfloat16 (--dtype bfloat16)",
    torch.bfloat16: "try float32 (--dtype float32), or --method full if it was another",
    torch.float32: "try weights that are stored in bfloat16, or --method full if it was another",
}


class NotFinite(BadInput):
    """A video's numbers have overflowed; it would be black.

    There is no second try: the same seed and weights overflow again, after as long a rendering, and where one video of
    a batch does so most of them do. Only where a try went on from a checkpoint that may be the cause, it counts as any
    other failure, and the next one begins anew.
    """

    failure_kind: ClassVar[FailureKind] = FailureKind.FINAL


class NotFiniteAfterCheckpoint(NotFinite):
    """The same in a try that went on from a checkpoint."""

    failure_kind: ClassVar[FailureKind] = FailureKind.ITEM


class FiniteSteps:
    """After which steps this rank's latents were finite. Nothing waits for the device before `first` is asked for."""

    def __init__(self) -> None:
        self._flags: list[Tensor] = []

    def note(self, latents: Tensor) -> None:
        """Take the latents at the end of a step."""
        self._flags.append(torch.isfinite(latents).all())

    def first(self, group: RankGroup) -> int:
        """The number, from 0, of the first noted step at whose end some rank's latents were not finite.

        All ranks call this; one of them has to have such latents.
        """
        num_finite = group.total(torch.stack(self._flags).float())
        return int((num_finite < group.sequence_size).int().argmax())


def check_finite(values: Tensor, what: str, dtype: torch.dtype) -> None:
    """Raises NotFinite, saying what helps in this number format, if a value is NaN or infinite."""
    if not torch.isfinite(values).all():
        raise not_finite(what, dtype)


def not_finite(
    what: str, dtype: torch.dtype, asked: torch.dtype | None = None, *, after_checkpoint: bool = False
) -> NotFinite:
    """What to raise for values in `dtype`, with what helps where `asked` was asked for, by default the same."""
    name, kind = str(dtype).removeprefix("torch."), NotFiniteAfterCheckpoint if after_checkpoint else NotFinite
    return kind(f"{what} not finite in {name}: {REMEDIES.get(asked or dtype, REMEDIES[torch.float32])}")
