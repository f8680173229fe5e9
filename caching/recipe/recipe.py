"""A caching method as a point on four axes (schedule, feature, tokens, predictor), and the registry of names.

No torch here: the command line reads this file to answer `--help`.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, Self, get_args

from caching.recipe.by_values import InputChange, OutputChange
from caching.recipe.clock import NO_SIGNALS
from caching.recipe.predictor import Chebyshev, Multistep, Predictor, ProxyTaylor, Taylor
from caching.recipe.schedule import Broadcast, Even, FewerSteps, GrowingInterval, Interval, Places, Schedule, Until
from caching.recipe.settings import OptionValue, Settings, one_of
from caching.recipe.tokens import (
    ClusteredTokens,
    MergedTokens,
    SelectedTokens,
    SparseColumns,
    Tokens,
    TrajectoryMedoids,
)

# From the velocity down to attention and feed-forward. residual: the velocity less the latents; delta: two thirds of
# the blocks, half_delta: half of them; attention: nothing but that; cross_attention: nothing but that to the text, in
# models that keep the two apart; mean_cross_attention: the same, on average over the passes of guidance.
Feature = Literal[
    "output",
    "residual",
    "stack",
    "delta",
    "half_delta",
    "block",
    "module",
    "attention",
    "cross_attention",
    "mean_cross_attention",
]

SKIPPED_PARTS: dict[Feature, float] = {"delta": 2 / 3, "half_delta": 1 / 2}  # of the blocks


@dataclass(frozen=True, kw_only=True)
class Recipe(Settings):
    """A method: when steps are dense, who is computed in a sparse step, and how the cached output moves."""

    name: str
    schedule: Schedule = field(default_factory=Interval)
    tokens: Tokens | None = None
    predictor: Predictor = field(default_factory=Taylor)
    feature: Feature = "output"

    def __post_init__(self) -> None:
        proxies = isinstance(self.tokens, TrajectoryMedoids)
        if proxies is not isinstance(self.predictor, ProxyTaylor):
            raise ValueError("proxy tokens and the predictor proxy_taylor belong together")
        if self.tokens is not None:
            self.tokens.check_feature(self.feature)
        if self.predictor.feature_class and (self.feature != "output" or self.tokens is not None):
            raise ValueError(f"the predictor {self.predictor.kind} moves the feature output, without tokens")
        if isinstance(self.predictor, Multistep):
            self._check_multistep(self.predictor)
        if self.schedule.watches_output and (self.feature != "residual" or self.tokens is not None):
            raise ValueError("changes of the output are told from what the feature residual keeps, without tokens")
        self._check_extrapolation()

    def _check_extrapolation(self) -> None:
        if self.predictor.correction and self.feature != "output":
            raise ValueError(f"only the output can be corrected, not the feature {self.feature!r}")
        if self.one_pass_when_sparse and (self.predictor.order or self.tokens):
            raise ValueError(f"the feature {self.feature!r} is reused as it is: order 0, and no tokens")

    def _check_multistep(self, predictor: Multistep) -> None:
        dense = {0, *self.schedule.dense} if isinstance(self.schedule, Places) else set()
        if len(predictor.weights) != len(dense):
            raise ValueError(
                "the predictor multistep needs one row of weights for each dense step of a schedule of the kind places"
            )

    @property
    def needs_cross_attention(self) -> bool:
        """Whether it works only on models whose tokens look at the text in modules of their own."""
        return self.feature in ("cross_attention", "mean_cross_attention")

    @property
    def attends_anew(self) -> bool:
        """Whether it works only on models whose tokens attend to all others."""
        return self.tokens is not None and self.tokens.attends_anew

    @property
    def caches_modules(self) -> bool:
        """Whether modules inside the blocks are cached."""
        return self.feature in ("module", "attention") or self.needs_cross_attention

    @property
    def changes_sides(self) -> bool:
        """Whether sparse steps in the second half of sampling compute other blocks than in the first (Delta-DiT)."""
        return self.feature in SKIPPED_PARTS

    def skipped_blocks(self, num_blocks: int) -> int:
        """How many blocks Delta-DiT leaves out: no fewer than it computes, so that those in front and behind differ."""
        return max(round(SKIPPED_PARTS[self.feature] * num_blocks), num_blocks - num_blocks // 2)

    @property
    def one_pass_when_sparse(self) -> bool:
        """Whether the first pass of a sparse step answers for all: what is cached makes them equal (T-GATE)."""
        return self.feature == "mean_cross_attention"

    @property
    def shards(self) -> int | None:
        """The token ranges inside which tokens are chosen, no fewer than the ranks of a video; None for any number."""
        return None if self.tokens is None else self.tokens.shards

    @property
    def feature_class(self) -> str | None:
        """The class that its tokens or its predictor are cached by, as `module:Class`; None for the feature's own."""
        of_tokens = None if self.tokens is None else self.tokens.feature_class
        return of_tokens or self.predictor.feature_class

    @property
    def options(self) -> Mapping[str, str]:
        """The options that it has, and the axis that each belongs to."""
        if not self.schedule.has_sparse_steps:
            return dict.fromkeys(self.schedule.options, "schedule")
        own = {option: axis for axis, settings in self._axes.items() for option in settings.options}
        return {**own, "feature": "feature"} if self._has_free_feature else own

    def dense_plan(self, num_steps: int) -> list[bool]:
        """Which steps are dense where full sampling makes `num_steps`; those of a typical video if it goes by values.

        ValueError for a number of steps that the schedule was not made for.
        """
        steps = self.schedule.num_steps(num_steps)
        clock = self.schedule.start(steps)
        return [clock.is_dense(step, NO_SIGNALS) for step in range(steps)]

    def with_option(self, option: str, value: OptionValue) -> Self:
        if option == "feature":
            return replace(self, feature=one_of("feature", str(value), get_args(Feature)))
        axis = self.options[option]
        changed: dict[str, Any] = {axis: self._axes[axis].with_option(option, value)}
        return replace(self, **changed)

    @property
    def _axes(self) -> dict[str, Settings]:
        """The settings of each axis that it has any on."""
        axes = {"schedule": self.schedule, "predictor": self.predictor, "tokens": self.tokens}
        return {axis: settings for axis, settings in axes.items() if settings is not None}

    @property
    def _has_free_feature(self) -> bool:
        """Whether the command line may choose what is cached."""
        bound = (
            self.predictor.correction
            or self.needs_cross_attention
            or self.feature_class
            or self.schedule.watches_output
        )
        return not bound and isinstance(self.tokens, TrajectoryMedoids | None)

    def describe(self) -> dict[str, Any]:
        """The resolved settings, as plain data for sidecars and reports."""
        return asdict(self)


REUSE = Taylor(order=0)

RECIPES: dict[str, Recipe] = {
    "full": Recipe(name="full", schedule=Interval(every=1)),
    "steps": Recipe(name="steps", schedule=FewerSteps()),
    "fora": Recipe(name="fora", predictor=REUSE, feature="module"),
    "delta-dit": Recipe(name="delta-dit", schedule=Interval(every=2), predictor=REUSE, feature="delta"),
    "pab": Recipe(name="pab", schedule=Broadcast(first=8, last=7), predictor=REUSE, feature="attention"),
    "t-gate": Recipe(name="t-gate", schedule=Until(), predictor=REUSE, feature="mean_cross_attention"),
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
    "easycache": Recipe(name="easycache", schedule=OutputChange(), predictor=REUSE, feature="residual"),
    "taylorseer": Recipe(name="taylorseer", predictor=Taylor(order=1, axis="step"), feature="module"),
    "clusca": Recipe(name="clusca", tokens=ClusteredTokens(), predictor=Taylor(order=1, axis="step"), feature="block"),
    "spectrum": Recipe(name="spectrum", schedule=GrowingInterval(growth=3.0), predictor=Chebyshev()),
    "auto": Recipe(name="auto", schedule=Even(), predictor=Taylor(order=1, correction=0.5)),
    "resca": Recipe(
        name="resca",
        tokens=TrajectoryMedoids(clusters=32, every=1),
        predictor=ProxyTaylor(order=1, axis="step", gain=1.0),
        feature="stack",
    ),
}


def recipe(name: str, **options: float | str | None) -> Recipe:
    """The recipe called `name`, with some of its settings changed; options that are None keep their defaults.

    Raises:
        ValueError: for an unknown name, an option that the method does not have, or a value out of range.
    """
    if name not in RECIPES:
        raise ValueError(f"unknown method {name!r}; known: {', '.join(RECIPES)}")
    result = RECIPES[name]
    known = tuple(result.options)
    for option, value in options.items():
        if value is None:
            continue
        if option not in known:
            raise ValueError(f"method {name!r} has no option {option!r}; its options: {', '.join(known) or 'none'}")
        result = result.with_option(option, value)
    return result
