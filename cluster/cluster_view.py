"""What slots ask about the cluster that they share."""

from typing import Protocol

from cluster.waiting import Pace


class ClusterView(Protocol):
    """What a slot asks about the cluster; a slot is named by its index."""

    def unusable(self) -> set[str]:
        """The ids of nodes that must get no new work."""
        ...

    def suspect(self, node_id: str) -> None:
        """A rank on this node has fallen silent."""
        ...

    def why_waiting(self) -> str:
        """Why a gang finds no place."""
        ...

    def make_room(self) -> None:
        """A gang finds no place: what is kept for nobody may end."""
        ...

    def may_leave(self, slot: int) -> bool:
        """Whether other gangs do the work, so that this one need not wait for a place; if so, it counts as gone."""
        ...

    def others_run(self, slot: int) -> bool:
        """Whether any other slot has a gang."""
        ...

    def pace(self) -> Pace:
        """How often rank 0 of a gang is asked for its heartbeat."""
        ...
