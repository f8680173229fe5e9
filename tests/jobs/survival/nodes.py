"""A cluster of one-core nodes whose ranks, nodes and driver are struck down at random."""

import random
import signal
import time
from dataclasses import dataclass

from ray.cluster_utils import Cluster

from tests.jobs.survival.conftest import NODE
from tests.jobs.survival.harness import Driver, ranks, send

HEARTBEAT_S = 8
# Most often a rank, sometimes stopped and not killed, a node with its successor, or the driver.
FAULTS = {"rank killed": 6, "rank stopped": 2, "node killed": 2, "driver killed": 2}


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What was struck, on which node, when (seconds since 1970), and how long it took until there was another node."""

    kind: str
    node: int
    t: float
    away_s: float = 0.0


class Nodes:
    """Use as a context manager: a head without CPUs, and nodes that each have a place, which a successor takes."""

    def __init__(self, num: int):
        self._num = num

    def __enter__(self) -> "Nodes":
        head = {**NODE, "num_cpus": 0, "include_dashboard": False, "dashboard_port": 0}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._nodes = [self._cluster.add_node(**NODE) for _ in range(self._num)]
        self._cluster.wait_for_nodes()
        return self

    def __exit__(self, *error: object) -> None:
        self._cluster.shutdown()

    @property
    def address(self) -> str:
        return self._cluster.address

    @property
    def raylets(self) -> list[int]:
        """The process of each node's raylet, whose descendants the ranks are."""
        return [node.all_processes["raylet"][0].process.pid for node in self._nodes]

    def strike(self, driver: Driver, chance: random.Random) -> Fault | None:
        """One fault; None if there was nothing to strike."""
        [kind] = chance.choices(list(FAULTS), list(FAULTS.values()))
        victims = [(node, rank) for node, raylet in enumerate(self.raylets) for rank in ranks(raylet)]
        t = time.time()
        if kind.startswith("rank") and victims:
            node, rank = chance.choice(victims)
            send(rank, signal.SIGKILL if kind == "rank killed" else signal.SIGSTOP)
            return Fault(kind=kind, node=node, t=t)
        if kind == "node killed":
            node = chance.randrange(self._num)
            self._cluster.remove_node(self._nodes[node], allow_graceful=False)
            self._nodes[node] = self._cluster.add_node(**NODE)
            return Fault(kind=kind, node=node, t=t, away_s=time.time() - t)
        if kind == "driver killed" and driver.process.poll() is None:
            driver.kill()
            return Fault(kind=kind, node=0, t=t)
        return None
