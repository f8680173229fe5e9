"""A gang over several nodes, on a Ray with real raylets for each of them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
from ray.cluster_utils import Cluster

from cluster.batch import run_batch
from cluster.placement import GangSpec, living_nodes
from cluster.ranks import RankContext
from cluster.runtime import ray_runtime

pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def two_nodes_of_three_cpus() -> Iterator[None]:
    options = {"num_cpus": 3, "object_store_memory": 80 << 20}
    cluster = Cluster(initialize_head=True, head_node_args={**options, "include_dashboard": False})
    try:
        cluster.add_node(**options)
        cluster.wait_for_nodes()
        with ray_runtime(cluster.address):
            yield
    finally:
        cluster.shutdown()


@dataclass(frozen=True)
class WhereAmI:
    """Writes the node of each rank into a file of its own, and who was asked to prepare a node."""

    folder: Path
    progress: float = 0.0
    beats: int = 0
    num_ended: int = 0
    overdue: str | None = None

    def prepare(self, context: RankContext) -> None:
        (self.folder / f"prepared-{context.rank}").touch()

    def __call__(self, context: RankContext) -> "WhereAmI":
        node = ray.get_runtime_context().get_node_id()
        (self.folder / str(context.rank)).write_text(f"{node} {context.local_rank}")
        return self

    def run(self, item: Any, attempt: int) -> Any:
        return item

    def close(self) -> None:
        pass


@pytest.mark.slow
def test_ranks_that_belong_together_are_neighbours_on_one_node(two_nodes_of_three_cpus: None, tmp_path: Path):
    assert [node["CPU"] for node in living_nodes()] == [3, 3]
    spec = GangSpec(world_size=4, together=2, start_timeout_s=90)
    (outcome,) = run_batch(spec=spec, gangs=1, workload=WhereAmI(tmp_path), items=["an item"])
    assert outcome.failure is None, outcome.error
    places = [tuple((tmp_path / str(rank)).read_text().split()) for rank in range(4)]
    assert places[0][0] == places[1][0] != places[2][0] == places[3][0]
    assert {path.name for path in tmp_path.glob("prepared-*")} == {"prepared-0", "prepared-2"}  # once a node
    assert [local_rank for _, local_rank in places] == ["0", "1", "0", "1"]
