"""What a dense step makes good of the sparse steps before it, in the spirit of an Adams-Moulton corrector."""

from math import inf, prod, sqrt

import torch
from torch import Tensor

from caching.group import Group


class Correction:
    """How far sparse steps have led astray, told from the error found at the next dense step.

    An extrapolation of order O through dense times t_0 ... t_O errs at t by about `c (t - t_0) ... (t - t_O)`. The
    error at the next dense step gives c, and so what was added up on the way there. No further evaluation is needed.

    Args:
        order: of the extrapolation.
        gain: the part that is made good; the model itself has seen the strayed latents since, which undoes the rest.
    """

    def __init__(self, order: int, gain: float) -> None:
        self.order, self.gain = order, gain
        self.nodes: list[float] = []
        self.strayed: list[tuple[float, float]] = []

    def sparse(self, time: float, span: float) -> None:
        """Note a sparse step at `time` that advances the noise level by `span`."""
        self.strayed.append((time, span))

    def dense(self, time: float) -> None:
        """Note a dense step: everything before it is made good."""
        self.nodes = [*self.nodes, time][-(self.order + 1) :]
        self.strayed = []

    @property
    def due(self) -> bool:
        return bool(self.gain and self.strayed)

    def weight(self, time: float) -> float:
        """What the latents lack at `time`, in units of the velocity's error there."""
        return self.gain * sum(span * self._growth(at) for at, span in self.strayed) / self._growth(time)

    def _growth(self, time: float) -> float:
        return prod(time - node for node in self.nodes)


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
