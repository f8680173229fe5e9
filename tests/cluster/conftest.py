"""A real local Ray for toy sessions, and what they must leave behind them."""

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray
from ray.util.placement_group import placement_group_table

from cluster.runtime import ray_runtime
from tests.cluster.toy import eventually, pids_of


@pytest.fixture(scope="module")
def ray_of_two_cpus() -> Iterator[None]:
    with ray_runtime(num_cpus=2):
        yield


@pytest.fixture
def nothing_is_left(ray_of_two_cpus: None, tmp_path: Path) -> Iterator[None]:
    """After each test: no rank lives, no placement group is held, every CPU is free."""
    yield
    assert eventually(lambda: not any(map(psutil.pid_exists, pids_of(tmp_path))))
    assert eventually(lambda: {group["state"] for group in placement_group_table().values()} <= {"REMOVED"})
    assert eventually(lambda: ray.available_resources().get("CPU") == 2)


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    """For ranks that hang, and will not come back."""
    monkeypatch.setattr("cluster.gang.GRACE_S", 1.0)
