"""A caching method as a point on four axes (schedule, feature, tokens, predictor), and the registry of names.

No torch here: the command line reads this file to answer `--help`.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, cast, get_args

from caching.schedule import FewerSteps, InputChange, Interval, Schedule
from caching.strict import Strict

Feature = Literal["output", "stack", "block", "module"]  # from the velocity down to attention and feed-forward


@dataclass(frozen=True, kw_only=True)
class Taylor(Strict):
    """How a cached value moves: a Taylor expansion through the last dense steps.

    Order 0 is reuse. `axis` is what derivatives are taken by: the noise level sigma, or the step index as TaylorSeer
    publishes it. `correction` is the part of the sparse steps' error that the next dense step makes good.
    """

    kind: Literal["taylor"] = "taylor"
    order: int = 1
    axis: Literal["sigma", "step"] = "sigma"
    correction: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.order <= 4:
            raise ValueError(f"order must be between 0 and 4, not {self.order}")


@dataclass(frozen=True, kw_only=True)
class ProxyTaylor(Strict):
    """ResCa's proxy-driven simulation (PDDS): a Taylor expansion corrected by the proxies' true residuals.

    `gain` scales what a proxy teaches its cluster; `None` fits it at each dense step, to what the proxies would have
    said there.
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


@dataclass(frozen=True, kw_only=True)
class TrajectoryMedoids(Strict):
    """ResCa's proxies (TETC): the medoids of clusters of tokens whose denoising trajectories are alike.

    Clusters are made inside `shards` contiguous token ranges, whatever the number of GPUs, so that a seed gives the
    same video on any of them. `context` bounds the number of keys that stand for the tokens that are not computed.
    Proxies are computed in each `every`-th sparse step after a dense one; the paper computes them in all.
    """

    clusters: int = 16
    shards: int = 8
    smoothing: float = 0.5
    sketch: int = 32
    history: int = 4
    context: int = 1024
    every: int = 3

    def __post_init__(self) -> None:
        if self.clusters < self.shards or self.clusters % self.shards:
            nearest = max(self.shards, round(self.clusters / self.shards) * self.shards)
            raise ValueError(
                f"clusters must be a multiple of the {self.shards} logical shards, not {self.clusters}; "
                f"nearest: {nearest}"
            )


@dataclass(frozen=True, kw_only=True)
class Recipe(Strict):
    """A method: when steps are dense, who is computed in a sparse step, and how the cached output moves."""

    name: str
    schedule: Schedule = field(default_factory=Interval)
    tokens: TrajectoryMedoids | None = None
    predictor: Taylor | ProxyTaylor = field(default_factory=Taylor)
    feature: Feature = "output"

    def __post_init__(self) -> None:
        if (self.tokens is None) is isinstance(self.predictor, ProxyTaylor):
            raise ValueError("proxy tokens and the predictor proxy_taylor belong together")
        if self.tokens is not None and self.feature != "output":
            raise ValueError(f"proxies simulate the output, not the feature {self.feature!r}")
        if self.predictor.correction and self.feature != "output":
            raise ValueError(f"only the output can be corrected, not the feature {self.feature!r}")

    def describe(self) -> dict[str, Any]:
        """The resolved settings, as plain data for sidecars and reports."""
        return asdict(self)


RECIPES: dict[str, Recipe] = {
    "full": Recipe(name="full", schedule=Interval(every=1)),
    "steps": Recipe(name="steps", schedule=FewerSteps()),
    "fora": Recipe(name="fora", predictor=Taylor(order=0), feature="module"),
    "taylorseer": Recipe(name="taylorseer", predictor=Taylor(order=1, axis="step"), feature="module"),
    "teacache": Recipe(name="teacache", schedule=InputChange(), predictor=Taylor(order=0), feature="stack"),
    "auto": Recipe(name="auto", predictor=Taylor(order=1, correction=0.5)),
    "resca": Recipe(name="resca", tokens=TrajectoryMedoids(), predictor=ProxyTaylor(order=1)),
}

Setter = Callable[[Recipe, Any], Recipe]
SETTERS: dict[str, Setter] = {
    "interval": lambda recipe, value: replace(recipe, schedule=replace(cast(Interval, recipe.schedule), every=value)),
    "threshold": lambda recipe, value: replace(
        recipe, schedule=replace(cast(InputChange, recipe.schedule), threshold=value)
    ),
    "order": lambda recipe, value: replace(recipe, predictor=replace(recipe.predictor, order=value)),
    "clusters": lambda recipe, value: replace(recipe, tokens=replace(_proxies(recipe), clusters=value)),
    "feature": lambda recipe, value: replace(recipe, feature=_feature(value)),
}
OPTIONS = {
    "full": (),
    "steps": ("interval",),
    "fora": ("interval", "feature"),
    "taylorseer": ("interval", "order", "feature"),
    "teacache": ("threshold",),
    "auto": ("interval", "order"),
    "resca": ("interval", "order", "clusters"),
}


def recipe(name: str, **options: float | str | None) -> Recipe:
    """The recipe called `name`, with some of its settings changed; options that are None keep their defaults.

    Raises:
        ValueError: for an unknown name, an option that the method does not have, or a value out of range.
    """
    if name not in RECIPES:
        raise ValueError(f"unknown method {name!r}; known: {', '.join(RECIPES)}")
    result = RECIPES[name]
    for option, value in options.items():
        if value is None:
            continue
        if option not in OPTIONS[name]:
            known = ", ".join(OPTIONS[name]) or "none"
            raise ValueError(f"method {name!r} has no option {option!r}; its options: {known}")
        result = SETTERS[option](result, value)
    return result


def _proxies(recipe: Recipe) -> TrajectoryMedoids:
    assert recipe.tokens is not None
    return recipe.tokens


def _feature(name: str) -> Feature:
    if name not in get_args(Feature):
        raise ValueError(f"unknown feature {name!r}; known: {', '.join(get_args(Feature))}")
    return cast(Feature, name)
