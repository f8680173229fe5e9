"""Who is computed in a sparse step: the token axis of a recipe.

No torch here: the command line reads this file to answer `--help`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Self

from caching.recipe.settings import OptionValue, Settings, one_of

SCORES = ("random", "similarity", "key_norm", "value_norm", "attention")


class TokenSettings(Settings):
    """What every choice of tokens has."""

    feature_class: ClassVar[str | None] = None
    """The class that caches for it, as `module:Class`; None for that of the recipe's feature."""
    goes_with: ClassVar[tuple[str, ...]] = ()
    """The features that it goes with; any, if there are none."""
    complaint: ClassVar[str] = ""
    """What is said of another feature, in place of `{}`."""
    attends_anew: ClassVar[bool] = False
    """Whether tokens attend to others than the model lets them: to means, to merged ones, to a part of the keys."""
    shards: int
    """Contiguous token ranges inside which tokens are chosen; no more ranks can share a video."""

    @property
    def num_clusters(self) -> int:
        """Of the whole video; none where tokens are not clustered."""
        return 0

    def check_feature(self, feature: str) -> None:
        """Raises ValueError for a feature that it does not go with."""
        if self.goes_with and feature not in self.goes_with:
            raise ValueError(self.complaint.format(repr(feature)))


class ClusterSettings(TokenSettings):
    """What is chosen by clusters of the whole video, as many in each token range."""

    clusters: int

    def __post_init__(self) -> None:
        check_clusters(self.clusters, self.shards)

    @property
    def num_clusters(self) -> int:
        return self.clusters

    @property
    def options(self) -> Mapping[str, str]:
        return {"clusters": "clusters"}


class RatioSettings(TokenSettings):
    """What leaves a part of the tokens out."""

    ratio: float

    def __post_init__(self) -> None:
        check_ratio(self.ratio)

    @property
    def options(self) -> Mapping[str, str]:
        return {"ratio": "ratio"}


@dataclass(frozen=True, kw_only=True)
class TrajectoryMedoids(ClusterSettings):
    """ResCa's proxies (TETC): the medoids of clusters of tokens whose denoising trajectories are alike.

    Clusters are made inside `shards` contiguous token ranges, whatever the number of GPUs, so that a seed gives the
    same video on any of them. `context` bounds the number of keys that stand for the tokens that are not computed.
    Proxies are computed in each `every`-th sparse step after a dense one; the paper computes them in all.
    """

    attends_anew: ClassVar[bool] = True
    goes_with: ClassVar[tuple[str, ...]] = ("output", "stack")
    complaint: ClassVar[str] = "proxies simulate the feature output or stack (all blocks), not {}"
    clusters: int = 16
    shards: int = 8
    smoothing: float = 0.5
    sketch: int = 32
    history: int = 4
    context: int = 1024
    every: int = 3


@dataclass(frozen=True, kw_only=True)
class SelectedTokens(RatioSettings):
    """Sparse steps compute a few tokens in every block, and store what comes out (ToCa, DuCa).

    `ratio` of the tokens are not computed. The others have the highest scores (`extreme` max) or the lowest; `turns`
    says in which sparse steps after a dense one any are computed at all. Where none is, the last block's output is
    reused (DuCa's aggressive steps).
    """

    feature_class: ClassVar[str | None] = "caching.features.partial:PartialFeature"
    goes_with: ClassVar[tuple[str, ...]] = ("block",)
    complaint: ClassVar[str] = "tokens of the kind 'selected' are cached block by block: feature block"
    kind: Literal["selected"] = "selected"
    ratio: float = 0.9
    score: Literal["random", "similarity", "key_norm", "value_norm", "attention"] = "random"
    extreme: Literal["max", "min"] = "max"
    turns: Literal["all", "odd", "even"] = "all"
    shards: int = 8

    @property
    def options(self) -> Mapping[str, str]:
        return {**super().options, "score": "score"}

    def with_option(self, option: str, value: OptionValue) -> Self:
        """The score is written NAME or, for the lowest scores, NAME:min."""
        if option != "score":
            return super().with_option(option, value)
        name, _, extreme = str(value).partition(":")
        score, extreme = one_of("score", name, SCORES), one_of("extreme", extreme or "max", ("max", "min"))
        return replace(self, **{"score": score, "extreme": extreme})


@dataclass(frozen=True, kw_only=True)
class ClusteredTokens(ClusterSettings):
    """Sparse steps compute one random token of each cluster, and the others move towards it by `gain` (ClusCa)."""

    feature_class: ClassVar[str | None] = "caching.features.partial:PartialFeature"
    goes_with: ClassVar[tuple[str, ...]] = ("block",)
    complaint: ClassVar[str] = "tokens of the kind 'clustered' are cached block by block: feature block"
    kind: Literal["clustered"] = "clustered"
    clusters: int = 16
    gain: float = 0.005
    shards: int = 8


@dataclass(frozen=True, kw_only=True)
class MergedTokens(RatioSettings):
    """Sparse steps compute fewer tokens, which stand for all; `ratio` of them are merged away.

    `keep` says who stays: random tokens, into which the most similar others are averaged (ToMeSD); those that the
    prompt attended to in the last dense step, whose results are copied (AT-EDM); or the first in the first half of
    the steps and then the second (SDTM). The ratio falls by the part `decay` until the last step.
    """

    attends_anew: ClassVar[bool] = True
    feature_class: ClassVar[str | None] = "caching.features.merging:MergingFeature"
    kind: Literal["merged"] = "merged"
    ratio: float = 0.5
    keep: Literal["random", "attended", "both"] = "random"
    decay: float = 0.0
    shards: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.decay <= 1:
            raise ValueError(f"decay must be between 0 and 1, not {self.decay}")


@dataclass(frozen=True, kw_only=True)
class SparseColumns(RatioSettings):
    """Sparse steps compute all tokens, but `ratio` of the keys and of the neurons are not (Chipmunk).

    `chunk` queries, neighbours in the video, share their keys.
    """

    attends_anew: ClassVar[bool] = True
    feature_class: ClassVar[str | None] = "caching.features.columns:ColumnFeature"
    kind: Literal["columns"] = "columns"
    ratio: float = 0.8
    chunk: int = 192
    shards: int = 1


def check_clusters(clusters: int, shards: int) -> None:
    """Raises ValueError if clusters cannot be shared out among logical shards."""
    if clusters < shards or clusters % shards:
        nearest = max(shards, round(clusters / shards) * shards)
        raise ValueError(
            f"clusters must be a multiple of the {shards} logical shards, not {clusters}; nearest: {nearest}"
        )


def check_ratio(ratio: float) -> None:
    """Raises ValueError unless some tokens are left to compute."""
    if not 0 <= ratio < 1:
        raise ValueError(f"ratio must be at least 0 and below 1, not {ratio}")


Tokens = TrajectoryMedoids | SelectedTokens | ClusteredTokens | MergedTokens | SparseColumns
