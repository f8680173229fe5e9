"""Reserving what a gang needs, all or nothing, and giving it back."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cluster.nodes import look

if TYPE_CHECKING:
    from ray.util.placement_group import PlacementGroup


@dataclass(frozen=True, kw_only=True)
class GangSpec:
    """What one gang is made of; `env` is set in every worker before it imports anything heavy.

    Neighbouring ranks, `together` of them, share a node; the rest may lie anywhere.

    Timeouts are in seconds: a place may take `start_timeout_s`, so may the processes, and so may building the
    sessions, but what a node has to fetch before that may take any time; after
    `collective_timeout_s` a collective whose peers do not answer fails, and so does a session that shows no progress;
    after `silence_s` a rank counts as lost that does not answer the driver.
    """

    world_size: int = 1
    together: int = 1
    num_gpus_per_rank: float = 0
    num_cpus_per_rank: float = 1
    start_timeout_s: float = 600
    collective_timeout_s: float = 600
    silence_s: float = 60
    env: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.world_size < 1:
            raise ValueError(f"world_size is {self.world_size}; a gang has at least 1 rank.")
        if self.together < 1 or self.world_size % self.together:
            raise ValueError(f"{self.world_size} ranks cannot be divided into groups of {self.together}.")
        if min(self.rank.values()) < 0:
            raise ValueError(f"CPUs and GPUs a rank must not be negative, but are {_amounts(self.rank)}.")
        if max(self.rank.values()) == 0:
            raise ValueError("CPUs and GPUs a rank are both 0; a rank needs a share of one of them.")

    @property
    def rank(self) -> dict[str, float]:
        """The resources of one rank, in Ray's terms."""
        return {"CPU": self.num_cpus_per_rank, "GPU": self.num_gpus_per_rank}

    @property
    def bundle(self) -> dict[str, float]:
        """The resources of the ranks that share a node."""
        return {name: amount * self.together for name, amount in self.rank.items()}


class InfeasibleGang(ValueError):
    """The cluster cannot hold the gangs asked for, however long one waits."""


def shortfall(spec: GangSpec, gangs: int, nodes: Sequence[Mapping[str, float]]) -> str | None:
    """None if `gangs` gangs fit into the cluster, else a sentence that names what is asked and what there is.

    `nodes` are the total resources of each living node. What others use at the moment is not counted as missing: they
    will give it back.
    """
    num_ranks = gangs * spec.world_size
    room = _ranks_on(spec, nodes)
    if room >= num_ranks:
        return None
    asked = {name: amount * num_ranks for name, amount in spec.rank.items()}
    available = {name: sum(node.get(name, 0) for node in nodes) for name in spec.rank}
    in_groups = f", {spec.together} of them on one node" if spec.together > 1 else ""
    return (
        f"{_count(gangs, 'gang')} of {_count(spec.world_size, 'rank')} asked for {_amounts(asked, spec.rank)} "
        f"({_amounts(spec.rank, spec.rank)} a rank{in_groups}), but the cluster has {_amounts(available, spec.rank)} "
        f"on {_count(len(nodes), 'node')}: room for {_count(room, 'rank')}."
    )


def living_nodes() -> list[dict[str, float]]:
    """The total resources of each node that is alive."""
    return [node.resources for node in look().living.values()]


def room(spec: GangSpec, nodes: Sequence[Mapping[str, float]]) -> int:
    """How many gangs fit on nodes with these resources."""
    return _ranks_on(spec, nodes) // spec.world_size


def reserve(spec: GangSpec, avoid: Iterable[str] = ()) -> "PlacementGroup":
    """Asks Ray for a gang's bundles, on as few nodes as possible; returns the (still pending) placement group.

    None of the nodes with ids in `avoid` is taken.
    """
    from ray.util.placement_group import placement_group

    bundle = {name: amount for name, amount in spec.bundle.items() if amount > 0}
    bundles = [dict(bundle) for _ in range(spec.world_size // spec.together)]
    avoided = ", ".join(sorted(avoid))
    selectors = [{"ray.io/node-id": f"!in({avoided})"} for _ in bundles] if avoided else None
    return placement_group(bundles, strategy="PACK", bundle_label_selector=selectors)  # pyright: ignore[reportArgumentType]


def release(group: "PlacementGroup") -> None:
    """Gives a placement group back; one that is gone already is left alone."""
    from ray.util.placement_group import remove_placement_group

    remove_placement_group(group)


def _ranks_on(spec: GangSpec, nodes: Sequence[Mapping[str, float]]) -> int:
    return sum(_groups_on(node, spec.bundle) for node in nodes) * spec.together


def _groups_on(node: Mapping[str, float], bundle: Mapping[str, float]) -> int:
    # A tiny tolerance, so that ten ranks of 0.1 fit into 1.
    return min(int(node.get(name, 0) / amount + 1e-6) for name, amount in bundle.items() if amount > 0)


def _amounts(resources: Mapping[str, float], wanted: Mapping[str, float] | None = None) -> str:
    names = [name for name in resources if wanted is None or wanted[name] > 0]
    return " and ".join(_count(resources[name], name) for name in names)


def _count(amount: float, noun: str) -> str:
    return f"{amount:g} {noun}" if amount == 1 else f"{amount:g} {noun}s"
