"""How fast the output changes with the latents, and so how much it is expected to change in a step (EasyCache).

Legend: B batch, N local tokens, P values of a patch of latents.
"""

from math import inf

import torch
from torch import Tensor

from caching.group import Group
from caching.state_dict import StateDict


class TransformationRate:
    """The change of the output over that of the latents, between the last two dense steps; all ranks agree."""

    def __init__(self, group: Group) -> None:
        self.group = group
        self.last: Tensor | None = None  # the latents of the last step
        self.dense: list[Tensor] = []  # the latents and the output of the last dense step
        self.sums: Tensor | None = None  # of this rank: changes of output and latents, and the output's size

    def observe(self, latents: Tensor, output: Tensor) -> None:
        """Take a dense step, `[B, N, P]` both."""
        if self.dense:
            changes = (output - self.dense[1], latents - self.dense[0], output)
            self.sums = torch.stack([each.abs().sum(dtype=torch.float32) for each in changes])
        self.dense, self.last = [latents, output], latents

    def expected(self, latents: Tensor, step: int) -> float:
        """The relative change (L1) of the output since the last step; infinite while no rate is known.

        `step` is the number of the one that begins with these latents `[B, N, P]`.
        """
        last, self.last = self.last, latents
        if last is None or self.sums is None:
            return inf
        self.group.mark("decision", step)
        moved = (latents - last).abs().sum(dtype=torch.float32)
        by_output, by_latents, size, change = self.group.total(torch.stack([*self.sums, moved])).tolist()
        return by_output / by_latents * change / size if by_latents and size else inf

    def forget(self) -> None:
        """Let go of what was observed."""
        self.last, self.dense, self.sums = None, [], None

    @property
    def cache_bytes(self) -> int:
        """After a dense step: its latents are the last ones, too."""
        return sum(tensor.nbytes for tensor in self.dense)

    def state_dict(self) -> StateDict:
        return {"last": self.last, "dense": self.dense, "sums": self.sums}

    def load_state_dict(self, state: StateDict) -> None:
        self.last, self.dense, self.sums = state["last"], state["dense"], state["sums"]
