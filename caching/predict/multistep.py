"""A velocity that is a weighted sum of those of all dense steps so far, by weights fitted to the model.

A dense step and the sparse steps after it are a stage. At output level no sparse step looks at the latents, so what a
stage adds to them depends on the mean velocity alone: one row of weights a stage says all there is to say. The weights
of a linear multistep solver (Adams-Bashforth) are the special case that needs no fit; those that are fitted lead back
to where full sampling would be, whatever has gone wrong before.

Legend: B batch, N tokens, C channels, J dense steps so far.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import torch
from torch import Tensor

from caching.state_dict import StateDict

RIDGE = 1e-5  # of the mean square velocity: keeps weights near those of the solver where the data say nothing

Row = tuple[float, ...]


class MultistepPredictor:
    """Applies one row of weights a stage."""

    def __init__(self, weights: Sequence[Row]) -> None:
        self.weights = weights
        self.values: list[Tensor] = []
        self.mean: Tensor | None = None  # of the present stage

    def observe(self, value: Tensor) -> None:
        """Take the true value `[B, N, C]` of a dense step. ValueError for one that has no weights."""
        self.values.append(value)
        if len(self.values) > len(self.weights):
            raise ValueError("the weights were fitted to a model that takes over from another one at another step")
        self.mean = combine(self.weights[len(self.values) - 1], self.values).to(value.dtype)

    def predict(self) -> Tensor:
        """The value of every step of this stage `[B, N, C]`."""
        assert self.mean is not None
        return self.mean

    def forget(self) -> None:
        """Let go of what was observed."""
        self.values, self.mean = [], None

    @property
    def cache_bytes(self) -> int:
        return sum(value.nbytes for value in self.values) + (self.mean.nbytes if self.mean is not None else 0)

    def state_dict(self) -> StateDict:
        return {"values": self.values, "mean": self.mean}

    def load_state_dict(self, state: StateDict) -> None:
        self.values, self.mean = state["values"], state["mean"]


def combine(weights: Row, values: list[Tensor]) -> Tensor:
    """The weighted sum of `J` values, in float32."""
    total = sum(weight * value.float() for weight, value in zip(weights, values, strict=True))
    assert isinstance(total, Tensor)
    return total


def solver_weights(nodes: list[float], times: list[float]) -> Row:
    """The mean, over a stage, of the line through the last two dense velocities (Adams-Bashforth 2, uneven steps).

    Args:
        nodes: the noise levels of the `J` dense steps so far.
        times: those of each step of the stage, and where it ends.
    """
    if len(nodes) == 1:
        return (1.0,)
    mean = sum((after - at) * at for at, after in pairwise(times)) / (times[-1] - times[0])
    forward = (mean - nodes[-1]) / (nodes[-1] - nodes[-2])
    return (*[0.0] * (len(nodes) - 2), -forward, 1 + forward)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What videos say of the weights of one stage: the normal equations of their least squares fit around `prior`."""

    prior: Row
    gram: Tensor  # [J, J], float64
    product: Tensor  # [J], float64

    @classmethod
    def of(cls, values: list[Tensor], wanted: Tensor, prior: Row) -> "Evidence":
        """Of one video.

        Args:
            values: its `J` dense velocities, of any one shape.
            wanted: the mean velocity that would lead from where it is to where full sampling is at the stage's end.
            prior: weights to stay near to where that costs next to nothing, `J` of them.
        """
        rows = torch.stack([value.float().flatten() for value in values])
        missing = wanted.float().flatten() - torch.tensor(prior, device=rows.device) @ rows
        return cls(prior=prior, gram=(rows @ rows.T).cpu().double(), product=(rows @ missing).cpu().double())

    @classmethod
    def total(cls, videos: Sequence["Evidence"]) -> "Evidence":
        """Of several videos together."""
        gram, product = (torch.stack([getattr(each, name) for each in videos]) for name in ("gram", "product"))
        return cls(prior=videos[0].prior, gram=gram.sum(0), product=product.sum(0))

    def without(self, video: "Evidence") -> "Evidence":
        """Of the others."""
        return replace(self, gram=self.gram - video.gram, product=self.product - video.product)

    @property
    def weights(self) -> Row:
        """The weights by which sums of dense velocities come nearest to what was wanted."""
        ridge = RIDGE * self.gram.diagonal().mean() * torch.eye(len(self.prior), dtype=torch.float64)
        change = torch.linalg.solve(self.gram + ridge, self.product)
        return tuple((torch.tensor(self.prior, dtype=torch.float64) + change).tolist())
