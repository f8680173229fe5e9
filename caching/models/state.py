"""What flows through a model's blocks, whatever the model.

Legend: B batch, N tokens, D hidden width, L text tokens.
"""

from dataclasses import dataclass

from torch import Tensor

Grid = tuple[int, int, int]  # tokens along frames, height and width
# What tells where tokens are: rotary cosines and sines, each [N, head width]; in models that add an embedding of their
# place to tokens instead, that [N, D], and nothing [N, 0].
Rotary = tuple[Tensor, Tensor]


@dataclass
class State:
    """The input of a block, for any subset of the tokens."""

    tokens: Tensor  # [B, N, D]
    text: Tensor  # [B, L, D]
    modulation: Tensor  # [B, 1, D] for all tokens, or [B, N, D] for each; some models have more axes before the last
    rotary: Rotary  # as far as the blocks need it

    def at(self, index: Tensor) -> "State":
        """That of some tokens, by their places `[K]`."""
        modulation = self.modulation if self.modulation.shape[1] == 1 else self.modulation[:, index]
        return State(self.tokens[:, index], self.text, modulation, (self.rotary[0][index], self.rotary[1][index]))
