"""How a cached value moves between dense steps: the predictor axis of a recipe.

No torch here: the command line reads this file to answer `--help`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal, Self

from caching.recipe.settings import OptionValue, Settings, one_of


class PredictorSettings(Settings):
    """What every predictor has."""

    feature_class: ClassVar[str | None] = None
    """The class that caches for it, as `module:Class`; None for that of the recipe's feature."""

    def check_epsilon(self) -> None:
        """Raises ValueError if it has no meaning for models of epsilon."""


@dataclass(frozen=True, kw_only=True)
class Taylor(PredictorSettings):
    """How a cached value moves: a Taylor expansion through the last dense steps.

    Order 0 is reuse. `axis` is what derivatives are taken by: the noise level sigma (of models of epsilon, the log of
    noise over signal), or the step index as TaylorSeer publishes it. `correction` is the part of the sparse steps'
    error that the next dense step makes good; of models of epsilon none is: it led further astray on the one tried.
    """

    kind: Literal["taylor"] = "taylor"
    order: int = 1
    axis: Literal["sigma", "step"] = "sigma"
    correction: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.order <= 4:
            raise ValueError(f"order must be between 0 and 4, not {self.order}")

    @property
    def options(self) -> Mapping[str, str]:
        return {"order": "order"} if self.order else {}


@dataclass(frozen=True, kw_only=True)
class ProxyTaylor(PredictorSettings):
    """ResCa's proxy-driven simulation (PDDS): a Taylor expansion corrected by the proxies' true residuals.

    `gain` scales what a proxy teaches its cluster, 1 in the paper; `None` fits it at each dense step, to what the
    proxies would have said there.
    """

    kind: Literal["proxy_taylor"] = "proxy_taylor"
    order: int = 1
    axis: Literal["sigma", "step"] = "sigma"
    correction: float = 0.0
    update: Literal["implicit", "explicit"] = "implicit"
    gain: float | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.order <= 2:
            raise ValueError(f"order must be between 0 and 2, not {self.order}")
        if self.order == 2 and self.gain != 1:
            raise ValueError("order 2 needs gain 1: a token's own residuals of order 2 stand still without its proxy's")

    @property
    def options(self) -> Mapping[str, str]:
        return {**({"order": "order"} if self.order else {}), "update": "update"}

    def with_option(self, option: str, value: OptionValue) -> Self:
        if option == "update":
            one_of("update", str(value), ("implicit", "explicit"))
        return super().with_option(option, value)


@dataclass(frozen=True, kw_only=True)
class Chebyshev(PredictorSettings):
    """A polynomial of some `degree` through all dense outputs so far, by ridge regression (Spectrum).

    `axis` is what it is a function of: the step index, as published, or the noise level sigma.
    """

    feature_class: ClassVar[str | None] = "caching.features.output:ForecastOutput"
    kind: Literal["chebyshev"] = "chebyshev"
    degree: int = 4
    ridge: float = 0.1
    axis: Literal["sigma", "step"] = "step"
    order: ClassVar[int] = 0
    correction: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        if self.degree < 0 or not self.ridge > 0:
            raise ValueError(f"degree must be at least 0 and ridge above 0, not {self.degree} and {self.ridge}")

    def check_epsilon(self) -> None:
        """It spans the noise levels from 0 to 1, and for such models has their logarithms."""
        if self.axis == "sigma":
            raise ValueError(
                "the predictor chebyshev needs a model of a velocity on the axis sigma; give it the axis step"
            )


@dataclass(frozen=True, kw_only=True)
class Multistep(PredictorSettings):
    """Weighted sums of the velocities of all dense steps so far, one row of `weights` for each dense step.

    `resca tune` fits them. They belong to the dense steps that stand beside them in the schedule. Where a model takes
    over from another one (Wan 2.2), rows begin again with a single weight.
    """

    feature_class: ClassVar[str | None] = "caching.features.output:FittedOutput"
    kind: Literal["multistep"] = "multistep"
    weights: tuple[tuple[float, ...], ...]
    order: ClassVar[int] = 0
    axis: ClassVar[str] = "sigma"
    correction: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        lengths = [len(row) for row in self.weights]
        if any(now not in (before + 1, 1) for before, now in pairwise([0, *lengths])):
            raise ValueError("the weights of dense step number n must be n numbers, one for each dense step so far")

    @property
    def of_models(self) -> tuple[tuple[tuple[float, ...], ...], ...]:
        """The rows of each model."""
        begins = [number for number, row in enumerate(self.weights) if len(row) == 1]
        return tuple(self.weights[begin:end] for begin, end in pairwise([*begins, len(self.weights)]))


Predictor = Taylor | ProxyTaylor | Chebyshev | Multistep
