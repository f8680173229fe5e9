"""What flows through a model's blocks, whatever the model.

Legend: B batch, N tokens, D hidden width, L text tokens.
"""

from dataclasses import dataclass

from torch import Tensor

Grid = tuple[int, int, int]  # tokens along frames, height and width
Rotary = tuple[Tensor, Tensor]


@dataclass
class State:
    """The input of a block, for any subset of the tokens."""

    tokens: Tensor  # [B, N, D]
    text: Tensor  # [B, L, D]
    modulation: Tensor  # [B, D]
    rotary: Rotary  # cosines and sines, each [N, head width]
