"""A value forecast by one polynomial in time through all dense steps so far (Spectrum, Han et al., CVPR 2026).

The polynomial is written in Chebyshev's basis over the whole of sampling, and found by ridge regression. A forecast is
linear in the values, so that a few weights say all that is to be computed.

Legend: B batch, N tokens, C channels, J dense steps so far.
"""

import numpy as np
from numpy.polynomial.chebyshev import chebvander
from torch import Tensor

from caching.predict.multistep import Row, combine
from caching.state_dict import StateDict


class ChebyshevPredictor:
    """Forecasts with all dense values so far.

    Args:
        degree: of the polynomial.
        ridge: what is added to the normal equations' diagonal; it draws all coefficients towards 0.
        span: the first and the last time that there are.
    """

    def __init__(self, degree: int, ridge: float, span: tuple[float, float]) -> None:
        self.degree, self.ridge, self.span = degree, ridge, span
        self.times: list[float] = []
        self.values: list[Tensor] = []

    def observe(self, time: float, value: Tensor) -> None:
        """Take the true value `[B, N, C]` of a dense step."""
        self.times, self.values = [*self.times, time], [*self.values, value]

    def predict(self, time: float) -> Tensor:
        """The value at `time`, `[B, N, C]`."""
        return combine(self.weights(time), self.values).to(self.values[-1].dtype)

    def weights(self, time: float) -> Row:
        """The weight of each dense value in the forecast for a time, `J` of them."""
        basis, wanted = self._basis(self.times), self._basis([time])[0]
        normal = basis.T @ basis + self.ridge * np.eye(self.degree + 1)
        return tuple((basis @ np.linalg.solve(normal, wanted)).tolist())

    def forget(self) -> None:
        """Let go of what was observed."""
        self.times, self.values = [], []

    @property
    def cache_bytes(self) -> int:
        return sum(value.nbytes for value in self.values)

    def state_dict(self) -> StateDict:
        return {"times": self.times, "values": self.values}

    def load_state_dict(self, state: StateDict) -> None:
        self.times, self.values = state["times"], state["values"]

    def _basis(self, times: list[float]) -> np.ndarray:
        """Chebyshev's polynomials at some times, one row each."""
        first, last = self.span
        return chebvander([2 * (time - first) / (last - first) - 1 for time in times], self.degree)
