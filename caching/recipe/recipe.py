"""A caching method as a point on four axes (schedule, feature, tokens, predictor), and the registry of names.

No torch here: the command line reads this file to answer `--help`.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, ClassVar, Literal, get_args

from caching.recipe.schedule import ErrorEstimate, FewerSteps, InputChange, Interval, Places, Schedule, Until
from caching.recipe.strict import Strict
from caching.recipe.tokens import (
    ClusteredTokens,
    MergedTokens,
    SelectedTokens,
    SparseColumns,
    Tokens,
    TrajectoryMedoids,
)

# From the velocity down to attention and feed-forward. delta: two thirds of the blocks; attention: nothing but that;
# cross_attention: nothing but that to the text, in models that keep the two apart.
Feature = Literal["output", "stack", "delta", "block", "module", "attention", "cross_attention"]


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
class Multistep(Strict):
    """Weighted sums of the velocities of all dense steps so far, one row of `weights` for each dense step.

    `resca tune` fits them. They belong to the dense steps that stand beside them in the schedule.
    """

    kind: Literal["multistep"] = "multistep"
    weights: tuple[tuple[float, ...], ...]
    order: ClassVar[int] = 0
    axis: ClassVar[str] = "sigma"
    correction: ClassVar[float] = 0.0

    def __post_init__(self) -> None:
        if any(len(row) != number for number, row in enumerate(self.weights, 1)):
            raise ValueError("the weights of dense step number n must be n numbers, one for each dense step so far")


@dataclass(frozen=True, kw_only=True)
class Recipe(Strict):
    """A method: when steps are dense, who is computed in a sparse step, and how the cached output moves."""

    name: str
    schedule: Schedule = field(default_factory=Interval)
    tokens: Tokens | None = None
    predictor: Taylor | ProxyTaylor | Multistep = field(default_factory=Taylor)
    feature: Feature = "output"

    def __post_init__(self) -> None:
        proxies = isinstance(self.tokens, TrajectoryMedoids)
        if proxies is not isinstance(self.predictor, ProxyTaylor):
            raise ValueError("proxy tokens and the predictor proxy_taylor belong together")
        if proxies and self.feature not in ("output", "stack"):
            raise ValueError(f"proxies simulate the feature output or stack (all blocks), not {self.feature!r}")
        if isinstance(self.tokens, SelectedTokens | ClusteredTokens) and self.feature != "block":
            raise ValueError(f"tokens of the kind {self.tokens.kind!r} are cached block by block: feature block")
        if isinstance(self.predictor, Multistep):
            self._check_multistep(self.predictor)
        if isinstance(self.schedule, ErrorEstimate) and (
            self.feature not in ("output", "stack") or self.predictor.order < 1
        ):
            raise ValueError(
                "errors are estimated of an extrapolation, order 1 or higher, of the feature output or stack"
            )
        if self.predictor.correction and self.feature != "output":
            raise ValueError(f"only the output can be corrected, not the feature {self.feature!r}")

    def _check_multistep(self, predictor: Multistep) -> None:
        if self.feature != "output" or self.tokens is not None:
            raise ValueError("the predictor multistep moves the feature output, without tokens")
        dense = {0, *self.schedule.dense} if isinstance(self.schedule, Places) else set()
        if len(predictor.weights) != len(dense):
            raise ValueError(
                "the predictor multistep needs one row of weights for each dense step of a schedule of the kind places"
            )

    @property
    def needs_cross_attention(self) -> bool:
        """Whether it works only on models whose tokens look at the text in modules of their own."""
        return self.feature == "cross_attention"

    def describe(self) -> dict[str, Any]:
        """The resolved settings, as plain data for sidecars and reports."""
        return asdict(self)


REUSE = Taylor(order=0)

RECIPES: dict[str, Recipe] = {
    "full": Recipe(name="full", schedule=Interval(every=1)),
    "steps": Recipe(name="steps", schedule=FewerSteps()),
    "fora": Recipe(name="fora", predictor=REUSE, feature="module"),
    "delta-dit": Recipe(name="delta-dit", schedule=Interval(every=2), predictor=REUSE, feature="delta"),
    "pab": Recipe(name="pab", schedule=Interval(every=2, first=8, last=7), predictor=REUSE, feature="attention"),
    "t-gate": Recipe(name="t-gate", schedule=Until(), predictor=REUSE, feature="cross_attention"),
    "toca": Recipe(
        name="toca",
        schedule=Interval(every=5, first=3),
        tokens=SelectedTokens(score="attention"),
        predictor=REUSE,
        feature="block",
    ),
    "duca": Recipe(
        name="duca",
        schedule=Interval(every=5, first=4),
        tokens=SelectedTokens(turns="odd"),
        predictor=REUSE,
        feature="block",
    ),
    "chipmunk": Recipe(name="chipmunk", tokens=SparseColumns(), predictor=REUSE),
    "tomesd": Recipe(name="tomesd", schedule=Places(dense=()), tokens=MergedTokens(), predictor=REUSE),
    "at-edm": Recipe(
        name="at-edm", schedule=Interval(every=5, first=8), tokens=MergedTokens(keep="attended"), predictor=REUSE
    ),
    "sdtm": Recipe(
        name="sdtm", schedule=Interval(every=5), tokens=MergedTokens(keep="both", decay=0.5), predictor=REUSE
    ),
    "teacache": Recipe(name="teacache", schedule=InputChange(), predictor=REUSE, feature="stack"),
    "taylorseer": Recipe(name="taylorseer", predictor=Taylor(order=1, axis="step"), feature="module"),
    "clusca": Recipe(name="clusca", tokens=ClusteredTokens(), predictor=Taylor(order=1, axis="step"), feature="block"),
    "auto": Recipe(name="auto", predictor=Taylor(order=1, correction=0.5)),
    "adaptive": Recipe(name="adaptive", schedule=ErrorEstimate(), predictor=Taylor(order=1, correction=0.5)),
    "resca": Recipe(name="resca", tokens=TrajectoryMedoids(), predictor=ProxyTaylor(order=1)),
}


@dataclass(frozen=True, kw_only=True)
class Option:
    """A setting that the command line can change, and the recipes that have it."""

    belongs_to: Callable[[Recipe], bool]
    change: Callable[[Recipe, Any], Recipe]


def _caches(recipe: Recipe) -> bool:
    return not isinstance(recipe.schedule, FewerSteps) and recipe.schedule != Interval(every=1)


def _replace(axis: str, setting: str) -> Callable[[Recipe, Any], Recipe]:
    """A change of one setting of one axis."""

    def change(recipe: Recipe, value: Any) -> Recipe:
        changed: dict[str, Any] = {axis: replace(getattr(recipe, axis), **{setting: value})}
        return replace(recipe, **changed)

    return change


OPTIONS = {
    "interval": Option(
        belongs_to=lambda recipe: getattr(recipe.schedule, "every", 1) > 1, change=_replace("schedule", "every")
    ),
    "threshold": Option(
        belongs_to=lambda recipe: isinstance(recipe.schedule, InputChange), change=_replace("schedule", "threshold")
    ),
    "tolerance": Option(
        belongs_to=lambda recipe: isinstance(recipe.schedule, ErrorEstimate), change=_replace("schedule", "tolerance")
    ),
    "order": Option(
        belongs_to=lambda recipe: _caches(recipe) and recipe.predictor.order > 0, change=_replace("predictor", "order")
    ),
    "update": Option(
        belongs_to=lambda recipe: isinstance(recipe.predictor, ProxyTaylor),
        change=lambda recipe, value: _replace("predictor", "update")(
            recipe, _one_of("update", value, ("implicit", "explicit"))
        ),
    ),
    "clusters": Option(
        belongs_to=lambda recipe: hasattr(recipe.tokens, "clusters"), change=_replace("tokens", "clusters")
    ),
    "ratio": Option(belongs_to=lambda recipe: hasattr(recipe.tokens, "ratio"), change=_replace("tokens", "ratio")),
    "score": Option(
        belongs_to=lambda recipe: isinstance(recipe.tokens, SelectedTokens),
        change=lambda recipe, value: _score(recipe, value),
    ),
    "feature": Option(
        belongs_to=lambda recipe: (
            _caches(recipe)
            and isinstance(recipe.tokens, TrajectoryMedoids | None)
            and not (recipe.predictor.correction or recipe.needs_cross_attention)
        ),
        change=lambda recipe, value: replace(recipe, feature=_one_of("feature", value, get_args(Feature))),
    ),
}


def options_of(recipe: Recipe) -> tuple[str, ...]:
    """The options that a recipe has."""
    return tuple(name for name, option in OPTIONS.items() if option.belongs_to(recipe))


def recipe(name: str, **options: float | str | None) -> Recipe:
    """The recipe called `name`, with some of its settings changed; options that are None keep their defaults.

    Raises:
        ValueError: for an unknown name, an option that the method does not have, or a value out of range.
    """
    if name not in RECIPES:
        raise ValueError(f"unknown method {name!r}; known: {', '.join(RECIPES)}")
    result = RECIPES[name]
    known = options_of(result)
    for option, value in options.items():
        if value is None:
            continue
        if option not in known:
            raise ValueError(f"method {name!r} has no option {option!r}; its options: {', '.join(known) or 'none'}")
        result = OPTIONS[option].change(result, value)
    return result


def _score(recipe: Recipe, value: str) -> Recipe:
    """`--score NAME` or, for the lowest scores, `NAME:min`."""
    name, _, extreme = value.partition(":")
    settings: Any = {
        "score": _one_of("score", name, ("random", "similarity", "key_norm", "value_norm", "attention")),
        "extreme": _one_of("extreme", extreme or "max", ("max", "min")),
    }
    assert isinstance(recipe.tokens, SelectedTokens)
    return replace(recipe, tokens=replace(recipe.tokens, **settings))


def _one_of(what: str, name: str, known: tuple[str, ...]) -> Any:
    if name not in known:
        raise ValueError(f"unknown {what} {name!r}; known: {', '.join(known)}")
    return name
