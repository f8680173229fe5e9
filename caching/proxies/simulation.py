"""Proxy-driven denoising simulation (PDDS): how a cluster follows its proxy between dense steps.

Legend: B batch, N tokens, C channels of the cached value, K proxies. `time` is the coordinate that derivatives are
taken by (sigma or the step index).
"""

from dataclasses import dataclass, field
from math import factorial

import torch
from torch import Tensor

from caching.predict.taylor import Derivatives, differentiate, extrapolate
from caching.state_dict import StateDict


def drift(derivatives: Derivatives, span: float) -> Derivatives:
    """Carry a value and its derivatives over `span` along their own Taylor expansion."""
    return [extrapolate(derivatives[order:], span) for order in range(len(derivatives))]


def implicit_step(value: Tensor, new: Derivatives, span: float) -> Tensor:
    """The implicit Taylor update (Eq. S9): derivatives are those of the new point. Order 1 is backward Euler.

    `x(t) = x(t+h) - h x'(t+h) + h^2/2 x''(t+h) - ...`, solved for `x(t+h)`.
    """
    return sum((new[m] * (-((-span) ** m) / factorial(m)) for m in range(1, len(new))), value)


@dataclass(kw_only=True)
class ProxySimulation:
    """One stage of sparse steps after a dense one.

    Each token keeps its own Taylor expansion; its proxy's true residuals correct it,
    `F(d) <- own(F(d)) + gain * (F(p) - own(F(p)))`. For gain 1 and order 1 that is the paper's propagation. Every step
    is linear, so what a cluster takes over is kept once, for its proxy, and added to the tokens' own expansions.
    """

    start: Derivatives  # of all local tokens at the dense step, each [B, N, C]
    start_time: float
    proxy_of: Tensor  # of each token its proxy's place among them [N]
    gain: Tensor | float
    implicit: bool
    proxy: Derivatives  # of the proxies, as last computed, each [B, K, C]
    deviation: Derivatives = field(default_factory=list)  # theirs from their own expansion, each [B, K, C]
    time: float = 0.0  # when proxies were computed last
    deviates: bool = False  # whether any have been computed

    @classmethod
    def begin(
        cls,
        derivatives: Derivatives,
        time: float,
        proxies: Tensor,
        proxy_of: Tensor,
        gain: Tensor | float,
        implicit: bool,
    ) -> "ProxySimulation":
        """Start at a dense step.

        Args:
            derivatives: of all local tokens, each `[B, N, C]`.
            proxies: token indices `[K]`; `proxy_of`: each token's place among them `[N]`.
        """
        proxy = [derivative[:, proxies] for derivative in derivatives]
        return cls(
            start=derivatives,
            start_time=time,
            proxy_of=proxy_of,
            gain=gain,
            implicit=implicit,
            proxy=proxy,
            deviation=[torch.zeros_like(derivative) for derivative in proxy],
            time=time,
        )

    def advance(self, time: float, truth: Tensor | None = None) -> Tensor:
        """A sparse step: every token's simulated value `[B, N, C]`.

        Args:
            truth: the proxies' computed values `[B, K, C]`; None in a step in which they are not computed.
        """
        if truth is not None:
            self._update(time, truth)
        own = extrapolate(self.start, time - self.start_time)
        return own + self._of_tokens(time, self.gain) if self.deviates else own

    def correction(self, time: float) -> Tensor:
        """What tokens take over from their proxies at gain 1, `[B, N, C]`."""
        return self._of_tokens(time, 1.0)

    @property
    def num_bytes(self) -> int:
        """Of what belongs to the proxies alone."""
        return sum(tensor.nbytes for tensor in self.deviation)

    def state_dict(self) -> StateDict:
        return {
            **{"start": self.start, "start_time": self.start_time, "proxy_of": self.proxy_of, "gain": self.gain},
            **{"implicit": self.implicit, "proxy": self.proxy, "deviation": self.deviation, "time": self.time},
            "deviates": self.deviates,
        }

    def _of_tokens(self, time: float, gain: Tensor | float) -> Tensor:
        return (gain * extrapolate(self.deviation, time - self.time))[:, self.proxy_of]

    def _update(self, time: float, truth: Tensor) -> None:
        span = time - self.time
        known, expected = drift(self.deviation, span), drift(self.proxy, span)
        self.proxy = differentiate(truth, self.proxy, span, len(self.proxy) - 1)
        deviation = [old + true - guess for old, true, guess in zip(known, self.proxy, expected, strict=True)]
        if len(deviation) > 1:
            deviation[0] = implicit_step(self.deviation[0], deviation, span) if self.implicit else known[0]
        self.deviation, self.time, self.deviates = deviation, time, True
