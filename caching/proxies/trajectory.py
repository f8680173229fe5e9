"""ResCa's temporal-enhanced trajectory similarity (TETC, steps 1 and 2) without the N x N matrix.

The paper accumulates `S <- alpha * S_t + (1 - alpha) * S` over dense steps, where `S_t` holds the cosine similarities
of all token features. Every term is an inner product, so the sum is one as well: with x the normalised feature,

    phi <- [sqrt(1 - alpha) * phi, sqrt(alpha) * x]        S(i, j) = <phi_i, phi_j>

Truncating the history and sketching each x to a few dimensions leaves O(N d) memory for O(N^2).

Legend: N tokens, D feature channels, d sketch dimensions.
"""

from math import sqrt

import torch
from torch import Tensor
from torch.nn import functional as F

from caching.state_dict import StateDict

PIECE = 8192  # tokens that are normalised at a time, in float32


class Trajectory:
    """The recent history of each token's features, as one vector whose inner products are similarities.

    Args:
        smoothing: the paper's alpha_S, the weight of the newest step.
        sketch: dimensions kept of each feature by a random projection; None keeps all of them (exact).
        history: the number of dense steps remembered.
    """

    def __init__(self, *, smoothing: float = 0.5, sketch: int | None = 32, history: int = 4) -> None:
        self.smoothing, self.sketch, self.history = smoothing, sketch, history
        self.features: list[Tensor] = []
        self.projection: Tensor | None = None

    def observe(self, features: Tensor) -> None:
        """Add the features `[N, D]` of a dense step."""
        pieces = [self._sketched(F.normalize(piece.float(), dim=-1)) for piece in features.split(PIECE)]
        self.features = [*self.features, torch.cat(pieces)][-self.history :]

    def vectors(self) -> Tensor:
        """`[N, d * steps]`; the inner product of two rows is the accumulated similarity of two tokens."""
        newest = len(self.features) - 1
        scales = [
            sqrt((self.smoothing if step else 1.0) * (1 - self.smoothing) ** (newest - step))
            for step in range(len(self.features))
        ]
        return torch.cat([scale * feature for scale, feature in zip(scales, self.features, strict=True)], dim=-1)

    @property
    def num_bytes(self) -> int:
        return sum(feature.nbytes for feature in self.features)

    def state_dict(self) -> StateDict:
        return {"features": self.features}

    def load_state_dict(self, state: StateDict) -> None:
        self.features = state["features"]

    def _sketched(self, direction: Tensor) -> Tensor:
        """Features `[n, D]` in fewer dimensions `[n, d]`."""
        if self.sketch is None or self.sketch >= direction.shape[-1]:
            return direction
        return direction @ self._projection(direction.shape[-1], direction.device)

    def _projection(self, num_channels: int, device: torch.device) -> Tensor:
        """A fixed Gaussian matrix `[D, d]`, the same on every rank; inner products survive it in expectation."""
        assert self.sketch is not None
        if self.projection is None:
            generator = torch.Generator().manual_seed(0)
            matrix = torch.randn(num_channels, self.sketch, generator=generator) / sqrt(self.sketch)
            self.projection = matrix.to(device)
        return self.projection
