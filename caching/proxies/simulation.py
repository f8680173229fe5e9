"""Proxy-driven denoising simulation (PDDS): how a cluster follows its proxy between dense steps."""

from math import factorial

import torch
from torch import Tensor

from caching.predict.taylor import Derivatives, differentiate, extrapolate


def drift(derivatives: Derivatives, span: float) -> Derivatives:
    """Carry a value and its derivatives over `span` along their own Taylor expansion."""
    return [extrapolate(derivatives[order:], span) for order in range(len(derivatives))]


def implicit_step(value: Tensor, new: Derivatives, span: float) -> Tensor:
    """The implicit Taylor update (Eq. S9): derivatives are those of the new point. Order 1 is backward Euler.

    `x(t) = x(t+h) - h x'(t+h) + h^2/2 x''(t+h) - ...`, solved for `x(t+h)`.
    """
    return sum((new[m] * (-((-span) ** m) / factorial(m)) for m in range(1, len(new))), value)


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
