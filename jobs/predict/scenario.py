"""A batch that is to be simulated, what happens to it, and what came of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from cluster.events import Outcome
from cluster.failure import Budgets, FailureKind
from cluster.placement import GangSpec


@dataclass(frozen=True, kw_only=True)
class Strike:
    """A loss whose time is known.

    It strikes the rank on a node, with its gang; a node with all its gangs; or the driver, behind which another one
    starts all gangs anew.
    """

    at_s: float
    what: Literal["rank", "node", "driver"]
    node: int = 0
    notice_s: float = 0.0
    """Until the driver knows of it."""
    notice_at_start_s: float | None = None
    """The same of a gang that is starting; None where it makes no difference."""
    away_s: float = 0.0
    """Until there is another node, or driver."""


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A batch, and what happens to it. Seconds of videos are those of a gang that nothing disturbs."""

    spec: GangSpec
    gangs: int
    nodes: Sequence[Mapping[str, float]]
    seconds: Sequence[float]
    """One for each video."""
    load_s: float
    budgets: Budgets = field(default_factory=Budgets)
    loss_hours: float | None = None
    """Hours in which a node is lost once, on average; None for never."""
    notice_s: float = 30.0
    """Until the driver knows of a loss."""
    repair_s: float = 600.0
    """Until another node stands in for a lost one."""
    spread: float = 0.03
    """Of the seconds of a video, as the standard deviation of their logarithm."""
    slow_nodes: float = 0.0
    """The part of nodes that are slower, by `slowness`; a gang is as slow as its slowest node."""
    slowness: float = 1.3
    failure_rates: Mapping[FailureKind, float] = field(default_factory=dict)
    """How often a run ends so, by kind."""
    start_failures: float = 0.0
    """How often a start ends so."""
    checkpoint_s: float | None = None
    """After so many seconds each a video's state is kept; None for never."""
    strikes: Sequence[Strike] = ()
    """Losses beside those that are drawn."""
    cores: float | None = None
    """Those of one machine that all gangs share; None where each has its own."""
    seed: int = 0

    @property
    def ranks(self) -> int:
        """Those that the gangs have together."""
        return self.gangs * self.spec.world_size


@dataclass(kw_only=True)
class Tally:
    """What came of it. Seconds of gangs: rendered for nothing, and in which they loaded."""

    seconds: float = 0.0
    node_losses: int = 0
    gang_losses: int = 0
    retries: int = 0
    busy_s: float = 0.0
    wasted_s: float = 0.0
    loading_s: float = 0.0
    renderings: list[int] = field(default_factory=list)
    """How often each video was rendered to its end."""
    outcomes: list[Outcome[int, bool]] = field(default_factory=list)

    @property
    def finished(self) -> int:
        return sum(outcome.error is None for outcome in self.outcomes)
