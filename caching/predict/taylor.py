"""How a cached value moves between dense steps: the predictor axis.

Legend: B batch, N tokens, C channels of the cached value, K proxies. `time` is the coordinate that derivatives are
taken by (sigma or the step index); a dense history needs no equal spacing.
"""

from math import factorial
from types import EllipsisType

import torch
from torch import Tensor

from caching.state_dict import StateDict

Index = tuple[slice | Tensor, ...] | EllipsisType  # of a part of a tensor

Derivatives = list[Tensor]  # the value and its derivatives, orders 0 to O


def extrapolate(derivatives: Derivatives, span: float) -> Tensor:
    """The value after `span` by its Taylor expansion; the very tensor where only the value is known."""
    value = derivatives[0]
    for order, derivative in enumerate(derivatives[1:], 1):
        value = torch.add(value, derivative, alpha=span**order / factorial(order))
    return value


def differentiate(value: Tensor, previous: Derivatives, span: float, order: int) -> Derivatives:
    """Backward divided differences of a new value against the derivatives `span` before it (TaylorSeer, Eq. S4)."""
    result = [value]
    for m in range(min(order, len(previous))):
        result.append((result[m] - previous[m]) / span)
    return result


class TaylorPredictor:
    """A value extrapolated from dense steps alone (FORA at order 0, TaylorSeer above)."""

    def __init__(self, order: int) -> None:
        self.order = order
        self.time = 0.0
        self.derivatives: Derivatives = []

    def observe(self, time: float, value: Tensor) -> None:
        """Take the true value `[B, N, C]` of a dense step."""
        self.derivatives = differentiate(value, self.derivatives, time - self.time, self.order)
        self.time = time

    def predict(self, time: float, part: Index = ...) -> Tensor:
        """The value at `time`, `[B, N, C]`, or a part of it, as an index says."""
        return extrapolate([derivative[part] for derivative in self.derivatives], time - self.time)

    def forget(self) -> None:
        """Let go of what was observed."""
        self.derivatives = []

    @property
    def cache_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.derivatives)

    def state_dict(self) -> StateDict:
        return {"time": self.time, "derivatives": self.derivatives}

    def load_state_dict(self, state: StateDict) -> None:
        self.time, self.derivatives = state["time"], state["derivatives"]
