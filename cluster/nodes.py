"""What the cluster has: its living nodes, those about to leave, and those that its autoscaler may still add."""

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

REFRESH_S = 2.0
# How long a node is avoided whose rank fell silent. Ray takes a node whose link is down for alive for minutes.
AVOID_S = 300.0


class HeadLost(RuntimeError):
    """The head of the Ray cluster does not answer any more; nothing can be started, stopped or learnt."""


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """The nodes at one moment: the total resources of each living one, by Ray's id, and the ids of those that leave."""

    living: dict[str, dict[str, float]]
    leaving: frozenset[str] = frozenset()

    def usable(self, avoid: Iterable[str] = ()) -> list[dict[str, float]]:
        """The resources of each node that may get new work."""
        out = self.leaving | set(avoid)
        return [resources for node, resources in self.living.items() if node not in out]


def look() -> Nodes:
    """Asks Ray. Draining nodes are listed by a private call of Ray 2.60."""
    import ray
    from ray._private.state import state

    living = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"]}
    return Nodes(living=living, leaving=frozenset(state.get_draining_nodes()))


def promised_nodes() -> list[dict[str, float]]:
    """The resources of all nodes that the cluster's autoscaler may ever run together; none if there is no autoscaler.

    By a private call of Ray 2.60, which Ray Data uses for the same question.
    """
    from ray._private.state import state

    config: Any = state.get_cluster_config()
    groups = config.node_group_configs if config else []
    return [dict(group.resources) for group in groups for _ in range(max(0, min(group.max_count, 10_000)))]


class NodeWatch:
    """Keeps looking at the nodes in a thread of its own, so that a head that does not answer blocks nobody else."""

    def __init__(self, head_timeout_s: float):
        self._head_timeout_s = head_timeout_s
        self._nodes = look()
        self._seen = time.monotonic()
        self._avoided: dict[str, float] = {}
        self._ended = threading.Event()
        threading.Thread(target=self._keep_looking, name="nodes", daemon=True).start()

    @property
    def nodes(self) -> Nodes:
        """As last seen."""
        return self._nodes

    def avoid(self, node_id: str) -> None:
        """Start nothing on this node for a while."""
        self._avoided[node_id] = time.monotonic() + AVOID_S

    def unusable(self) -> set[str]:
        """The living nodes that must get no new work: those that leave, and those to avoid."""
        now = time.monotonic()
        avoided = {node for node, until in dict(self._avoided).items() if until > now}
        return (avoided | self._nodes.leaving) & set(self._nodes.living)

    def usable(self) -> list[dict[str, float]]:
        """The resources of each node that may get new work."""
        return self._nodes.usable(self.unusable())

    def check_head(self) -> None:
        """Raises HeadLost if the head has not answered for too long."""
        silence = time.monotonic() - self._seen
        if silence > self._head_timeout_s:
            raise HeadLost(f"The head of the Ray cluster has not answered for {silence:.0f} s.")

    def end(self) -> None:
        self._ended.set()

    def _keep_looking(self) -> None:
        while not self._ended.wait(REFRESH_S):
            try:
                self._nodes = look()
            except Exception:  # Ray raises many kinds while the head is gone; the silence is what counts.
                continue
            self._seen = time.monotonic()
