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


def taylor_factors(span: float, order: int, *, implicit: bool) -> list[float]:
    """What the derivatives, orders 1 to `order`, are multiplied by in a step of `span`.

    The implicit update (Eq. S9) takes those of the new point, `x(t+h) = x(t) + h x'(t+h) - h^2/2 x''(t+h) + ...`, which
    at order 1 is backward Euler; the explicit one those of the old point.
    """
    sign = -1 if implicit else 1
    return [sign ** (m - 1) * span**m / factorial(m) for m in range(1, order + 1)]


@dataclass(kw_only=True)
class ProxySimulation:
    """One stage of sparse steps after a dense one.

    A token's residuals change as its proxy's do, `F^(m)(d) <- F^(m)(d) + F^(m)(p) - F^(m)(p, before)`, and move it by a
    Taylor step. All of that is linear, so a token keeps the residuals of the dense step and only each proxy's changes
    are kept, summed up; a token takes over `gain` times what that moves it by (1 in the paper). A proxy has the values
    that were computed of it. At order 0 there are no residuals, and the value itself changes as the proxy's.
    """

    start: Derivatives  # of all local tokens at the dense step, each [B, N, C]
    start_time: float
    index: Tensor  # of the proxies among the local tokens [K]
    proxy_of: Tensor  # of each token its proxy's place among them [N]
    gain: Tensor | float
    implicit: bool
    proxy: Derivatives  # of the proxies, as last computed, each [B, K, C]
    change: Derivatives  # of the proxies' residuals since the dense step, each [B, K, C]; first what it moves tokens by
    moved: list[float] = field(default_factory=list)  # what the tokens' own residuals were multiplied by up to `time`
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
            index=proxies,
            proxy_of=proxy_of,
            gain=gain,
            implicit=implicit,
            proxy=proxy,
            change=[torch.zeros_like(derivative) for derivative in proxy],
            moved=[0.0] * (len(proxy) - 1),
            time=time,
        )

    def advance(self, time: float, truth: Tensor | None = None) -> Tensor:
        """A sparse step: every token's simulated value `[B, N, C]`.

        Args:
            truth: the proxies' computed values `[B, K, C]`; None in a step in which they are not computed.
        """
        if truth is not None:
            self._update(time, truth)
        if not self.deviates:
            return extrapolate(self.start, time - self.start_time)
        factors = self._factors(time)
        value = self.start[0]
        for derivative, before, now in zip(self.start[1:], self.moved, factors, strict=True):
            value = torch.add(value, derivative, alpha=before + now)
        value = value + self._of_tokens(time, self.gain)
        return value.index_copy(1, self.index, extrapolate(self.proxy, time - self.time).to(value.dtype))

    def correction(self, time: float) -> Tensor:
        """What tokens take over from their proxies at gain 1, `[B, N, C]`."""
        return self._of_tokens(time, 1.0)

    @property
    def num_bytes(self) -> int:
        """Of what belongs to the proxies alone."""
        return sum(tensor.nbytes for tensor in [*self.proxy, *self.change])

    def state_dict(self) -> StateDict:
        return {
            **{"start": self.start, "start_time": self.start_time, "index": self.index, "proxy_of": self.proxy_of},
            **{"gain": self.gain, "implicit": self.implicit, "proxy": self.proxy, "change": self.change},
            **{"moved": self.moved, "time": self.time, "deviates": self.deviates},
        }

    def _factors(self, time: float) -> list[float]:
        """Of a step from the proxies' last computation."""
        return taylor_factors(time - self.time, len(self.start) - 1, implicit=self.implicit)

    def _of_tokens(self, time: float, gain: Tensor | float) -> Tensor:
        return (gain * self._moved_by(time))[:, self.proxy_of]

    def _moved_by(self, time: float) -> Tensor:
        """By how much the proxies' changes have moved their tokens at `time`, `[B, K, C]`."""
        moved, *residuals = self.change
        for residual, factor in zip(residuals, self._factors(time), strict=True):
            moved = torch.add(moved, residual, alpha=factor)
        return moved

    def _update(self, time: float, truth: Tensor) -> None:
        """Take the proxies' values at `time`; an implicit step uses the residuals that they have there."""
        span, before = time - self.time, self.proxy
        self.proxy = differentiate(truth, before, span, len(before) - 1)
        residuals = [old + new - last for old, new, last in zip(self.change, self.proxy, before, strict=True)][1:]
        if self.implicit:
            self.change = [self.change[0], *residuals]
        moved = self._moved_by(time) if residuals else truth - self.start[0][:, self.index]
        self.change = [moved, *residuals]
        self.moved = [sum(pair) for pair in zip(self.moved, self._factors(time), strict=True)]
        self.time, self.deviates = time, True
