"""A tiny model, what it renders undisturbed, and Ray clusters of several nodes on this machine."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from filelock import FileLock
from ray.cluster_utils import Cluster
from ray.util.placement_group import placement_group_table

from tests.jobs.survival.harness import QUICK_STEPS, STEPS, checksums, render, render_here, until
from tests.jobs.tiny_model import save_tiny_pipeline

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that the processes of one test run share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def model(shared: Path) -> Path:
    with FileLock(shared / "model.lock"):
        found = shared / "model"
        return found if found.exists() else save_tiny_pipeline(found)


@pytest.fixture
def steps(request: pytest.FixtureRequest) -> int:
    """Of a video."""
    return STEPS if request.node.get_closest_marker("slow") else QUICK_STEPS


@pytest.fixture(scope="session")
def undisturbed(model: Path, shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, str]]:
    """The checksums of videos with some steps and options that nothing disturbs, which one process finds for all."""

    def undisturbed(steps: int, *options: object) -> dict[str, str]:
        found = shared / "-".join(["undisturbed", str(steps), *map(str, options)])
        with FileLock(f"{found}.lock"):
            if not found.exists():
                place = tmp_path_factory.mktemp("undisturbed")
                if options:
                    driver = render(model, place / "out", steps, *options, log=place / "log")
                    assert driver.wait() == 0, driver.told
                else:
                    render_here(model, place / "out", steps)
                found.write_text(json.dumps(checksums(place / "out")))
        return json.loads(found.read_text())

    return undisturbed


@pytest.fixture
def reference(undisturbed: Callable[..., dict[str, str]], steps: int) -> dict[str, str]:
    """The checksums of an undisturbed run."""
    return undisturbed(steps)


@pytest.fixture
def reference_of_pairs(undisturbed: Callable[..., dict[str, str]], steps: int) -> dict[str, str]:
    """The same by two ranks a video; sums are added up in another order there."""
    return undisturbed(steps, "--ring", 2)


@pytest.fixture
def reference_of_single_cores(undisturbed: Callable[..., dict[str, str]], steps: int) -> dict[str, str]:
    """The same where a rank has one of two cores, as on the nodes here: the number of threads orders sums, too."""
    return undisturbed(steps, "--gangs", 2)


@pytest.fixture
def start(model: Path, steps: int, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Starts drivers of the same batch; none outlives the test."""
    drivers = []

    def start(*options: object, out: Path | str | None = None, **settings: Any) -> Any:
        log = tmp_path / f"driver-{len(drivers)}.log"
        drivers.append(render(model, out or tmp_path / "out", steps, *options, log=log, **settings))
        return drivers[-1]

    yield start
    for driver in drivers:
        if driver.process.poll() is None:
            driver.kill()


@pytest.fixture
def head() -> Iterator[Cluster]:
    """A head without CPUs; afterwards no placement group is held."""
    cluster = Cluster(
        initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False, "dashboard_port": 0}
    )
    try:
        yield cluster
        check_nothing_is_held(cluster.address)
    finally:
        cluster.shutdown()


@pytest.fixture
def cluster(head: Cluster) -> Cluster:
    """With two nodes of one CPU each."""
    head.add_node(**NODE)
    head.add_node(**NODE)
    head.wait_for_nodes()
    return head


def check_nothing_is_held(address: str, patience_s: float = 0) -> None:
    """Every placement group is removed, within so long, and every CPU of the living nodes is free."""
    before = dict(os.environ)
    ray.init(address=address, logging_level="ERROR", log_to_driver=False)
    try:
        until(
            lambda: {group["state"] for group in placement_group_table().values()} <= {"REMOVED"},
            "every placement group to be removed",
            patience_s,
        )
        until(
            lambda: ray.available_resources().get("CPU", 0) == ray.cluster_resources().get("CPU", 0), "CPUs to be free"
        )
    finally:
        ray.shutdown()
        os.environ.clear()
        os.environ.update(before)
