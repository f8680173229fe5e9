"""What the cluster has: its living nodes, those about to leave, and those that its autoscaler may still add."""

import socket
import threading
import time
from dataclasses import dataclass, field

REFRESH_S = 2.0
PROBE_TIMEOUT_S = 2.0


class HeadLost(RuntimeError):
    """The head of the Ray cluster does not answer any more; nothing can be started, stopped or asked."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """A living node: its total resources, and where its Ray listens."""

    resources: dict[str, float]
    address: tuple[str, int]

    def answers(self) -> bool:
        """Whether it can be reached from here. Ray takes a node whose link is down for alive for a minute and more."""
        try:
            socket.create_connection(self.address, timeout=PROBE_TIMEOUT_S).close()
        except OSError:
            return False
        return True


@dataclass(frozen=True, kw_only=True)
class Nodes:
    """The nodes at one moment: each living one by Ray's id, and the ids of those that leave."""

    living: dict[str, Node] = field(default_factory=dict)
    leaving: frozenset[str] = frozenset()


def look() -> Nodes:
    """Asks Ray. Draining nodes are listed by a private call of Ray 2.60."""
    import ray
    from ray._private.state import state

    living = {
        node["NodeID"]: Node(
            resources=node["Resources"], address=(node["NodeManagerAddress"], int(node["NodeManagerPort"]))
        )
        for node in ray.nodes()
        if node["Alive"]
    }
    return Nodes(living=living, leaving=frozenset(state.get_draining_nodes()))


class NodeWatch:
    """Keeps looking at the nodes in a thread of its own, so that a head that does not answer blocks nobody else."""

    def __init__(self, head_timeout_s: float):
        self._head_timeout_s = head_timeout_s
        self._nodes = look()
        self._seen = time.monotonic()
        self._cut_off: frozenset[str] = frozenset()
        self._ended = threading.Event()
        threading.Thread(target=self._keep_looking, name="nodes", daemon=True).start()

    def suspect(self, node_id: str) -> None:
        """A rank on this node has fallen silent: if the node itself cannot be reached, nothing is started on it."""
        node = self._nodes.living.get(node_id)
        if node is not None and not node.answers():
            self._cut_off |= {node_id}

    def unusable(self) -> set[str]:
        """The living nodes that must get no new work: those that leave, and those that are cut off."""
        return set((self._cut_off | self._nodes.leaving) & self._nodes.living.keys())

    def usable(self) -> list[dict[str, float]]:
        """The resources of each node that may get new work."""
        unusable = self.unusable()
        return [node.resources for node_id, node in self._nodes.living.items() if node_id not in unusable]

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
            self._cut_off -= {node_id for node_id in self._cut_off if self._is_back(node_id)}

    def _is_back(self, node_id: str) -> bool:
        node = self._nodes.living.get(node_id)
        return node is None or node.answers()
