"""How wrong an extrapolation is expected to be, told from how wrong it was at the last dense step."""

from math import inf, prod, sqrt

import torch
from torch import Tensor

from caching.group import Group


class ExtrapolationError:
    """The relative error of an extrapolation of order O, in one generation.

    Through dense times t_0 ... t_O it errs at t by about `c (t - t_0) ... (t - t_O)`; each dense step that could have
    been extrapolated gives c anew, and so do proxies that a sparse step computes. All ranks agree.
    """

    def __init__(self, order: int) -> None:
        self.order = order
        self.nodes: list[float] = []
        self.rate: float | None = None

    @property
    def ready(self) -> bool:
        """Whether a dense step now would show an error."""
        return len(self.nodes) == self.order + 1

    def measure(self, time: float, predicted: Tensor, truth: Tensor, group: Group) -> None:
        """Compare the extrapolation with the truth, of any local tokens `[B, n, C]` both."""
        squares = torch.stack([(predicted - truth).float().square().sum(), truth.float().square().sum()])
        error, size = group.total(squares).tolist()
        self.rate = sqrt(error / size) / abs(self._growth(time)) if size else 0.0

    def dense(self, time: float) -> None:
        """End a dense step."""
        self.nodes = [*self.nodes, time][-(self.order + 1) :]

    def at(self, time: float) -> float:
        """The expected relative error at a time; infinite while nothing is known."""
        return self.rate * abs(self._growth(time)) if self.rate is not None else inf

    def _growth(self, time: float) -> float:
        return prod(time - node for node in self.nodes)
