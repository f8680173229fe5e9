"""How a cached value moves between dense steps: the predictor axis.

Legend: B batch, N tokens, C channels of the cached value, K proxies. `time` is the coordinate that derivatives are
taken by (sigma or the step index); a dense history needs no equal spacing.
"""

from math import factorial
from typing import Any

import torch
from torch import Tensor

Derivatives = list[Tensor]  # the value and its derivatives, orders 0 to O


def extrapolate(derivatives: Derivatives, span: float) -> Tensor:
    """The value after `span` by its Taylor expansion; the very tensor where only the value is known."""
    value = derivatives[0]
    for order, derivative in enumerate(derivatives[1:], 1):
        value = torch.add(value, derivative, alpha=span**order / factorial(order))
    return value


def drift(derivatives: Derivatives, span: float) -> Derivatives:
    """Carry a value and its derivatives over `span` along their own Taylor expansion."""
    return [extrapolate(derivatives[order:], span) for order in range(len(derivatives))]


def differentiate(value: Tensor, previous: Derivatives, span: float, order: int) -> Derivatives:
    """Backward divided differences of a new value against the derivatives `span` before it (TaylorSeer, Eq. S4)."""
    result = [value]
    for m in range(min(order, len(previous))):
        result.append((result[m] - previous[m]) / span)
    return result


def implicit_step(value: Tensor, new: Derivatives, span: float) -> Tensor:
    """The implicit Taylor update (Eq. S9): derivatives are those of the new point. Order 1 is backward Euler.

    `x(t) = x(t+h) - h x'(t+h) + h^2/2 x''(t+h) - ...`, solved for `x(t+h)`.
    """
    return sum((new[m] * (-((-span) ** m) / factorial(m)) for m in range(1, len(new))), value)


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

    def predict(self, time: float, part: Any = ...) -> Tensor:
        """The value at `time`, `[B, N, C]`, or a part of it, as an index says."""
        return extrapolate([derivative[part] for derivative in self.derivatives], time - self.time)

    @property
    def cache_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.derivatives)


class ProxySimulation:
    """Proxy-driven denoising simulation (PDDS): one stage of sparse steps after a dense one.

    Each token keeps its own Taylor expansion; its proxy's true residuals correct it,
    `F(d) <- own(F(d)) + gain * (F(p) - own(F(p)))`. For gain 1 and order 1 that is the paper's propagation. Every step
    is linear, so what a cluster learns is kept once, for its proxy, and added to the tokens' own expansions.
    """

    def __init__(
        self,
        derivatives: Derivatives,
        time: float,
        proxies: Tensor,
        proxy_of: Tensor,
        gain: Tensor | float,
        implicit: bool,
    ) -> None:
        """Start at a dense step.

        Args:
            derivatives: of all local tokens, each `[B, N, C]`.
            proxies: token indices `[K]`; `proxy_of`: each token's place among them `[N]`.
        """
        self.start, self.start_time, self.time = derivatives, time, time
        self.proxy_of, self.gain, self.implicit = proxy_of, gain, implicit
        self.proxy = [derivative[:, proxies] for derivative in derivatives]
        self.lesson = [torch.zeros_like(derivative) for derivative in self.proxy]
        self.taught = False

    def advance(self, time: float, truth: Tensor | None = None) -> Tensor:
        """A sparse step: every token's simulated value `[B, N, C]`.

        Args:
            truth: the proxies' computed values `[B, K, C]`; None in a step in which they are not computed.
        """
        if truth is not None:
            self._learn(time, truth)
        own = extrapolate(self.start, time - self.start_time)
        return own + self._taught_to_tokens(time, self.gain) if self.taught else own

    def correction(self, time: float) -> Tensor:
        """What the proxies teach at gain 1, `[B, N, C]`."""
        return self._taught_to_tokens(time, 1.0)

    def _taught_to_tokens(self, time: float, gain: Tensor | float) -> Tensor:
        return (gain * extrapolate(self.lesson, time - self.time))[:, self.proxy_of]

    def _learn(self, time: float, truth: Tensor) -> None:
        span = time - self.time
        known, expected = drift(self.lesson, span), drift(self.proxy, span)
        self.proxy = differentiate(truth, self.proxy, span, len(self.proxy) - 1)
        lesson = [old + true - guess for old, true, guess in zip(known, self.proxy, expected, strict=True)]
        if len(lesson) > 1:
            lesson[0] = implicit_step(self.lesson[0], lesson, span) if self.implicit else known[0]
        self.lesson, self.time, self.taught = lesson, time, True
