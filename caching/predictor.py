"""How a cached value moves between dense steps: the predictor axis.

Legend: B batch, N tokens, C channels of the cached value, K proxies. `time` is the coordinate that derivatives are
taken by (sigma or the step index); a dense history needs no equal spacing.
"""

from math import factorial

from torch import Tensor

Derivatives = list[Tensor]  # the value and its derivatives, orders 0 to O


def drift(derivatives: Derivatives, span: float) -> Derivatives:
    """Carry a value and its derivatives over `span` along their own Taylor expansion."""
    return [
        sum((derivatives[m + j] * (span**j / factorial(j)) for j in range(1, len(derivatives) - m)), derivatives[m])
        for m in range(len(derivatives))
    ]


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

    def predict(self, time: float) -> Tensor:
        """The value at `time`, `[B, N, C]`."""
        return drift(self.derivatives, time - self.time)[0]

    @property
    def cache_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.derivatives)


class ProxySimulation:
    """Proxy-driven denoising simulation (PDDS): one stage of sparse steps after a dense one.

    Each token keeps its own Taylor expansion; in every sparse step its proxy's true residuals correct it,
    `F(d) <- own(F(d)) + gain * (F(p) - own(F(p)))`. For gain 1 and order 1 that is the paper's propagation.
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
        self.own, self.time, self.gain, self.implicit = derivatives, time, gain, implicit
        self.proxy_of = proxy_of
        self.proxy = [derivative[:, proxies] for derivative in derivatives]

    def advance(self, time: float, truth: Tensor) -> Tensor:
        """One sparse step: the proxies' computed values `[B, K, C]` in, every token's simulated value out."""
        span = time - self.time
        own, expected = drift(self.own, span), drift(self.proxy, span)
        self.proxy = differentiate(truth, self.proxy, span, len(self.proxy) - 1)
        lessons = [
            self.gain * (true - guess)[:, self.proxy_of] for true, guess in zip(self.proxy, expected, strict=True)
        ]
        corrected = [mine + lesson for mine, lesson in zip(own, lessons, strict=True)]
        if len(own) > 1:
            corrected[0] = implicit_step(self.own[0], corrected, span) if self.implicit else own[0]
        self.own, self.time = corrected, time
        return corrected[0]
