"""A cluster that scales by itself: a batch that does not fit yet asks for its nodes by its placement groups."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray

from tests.jobs.survival.harness import RAY, check_nothing_is_lost, told, until
from tests.ray_configs.ports import free_ports

pytestmark = [pytest.mark.timeout(600), pytest.mark.slow]
HEAD_ID = "f" * 51 + "00000"
NO_TOKEN = {"RAY_AUTH_MODE": "disabled"}
COMMANDS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
)


def config(address: str) -> dict:
    """Ray's own autoscaler, whose nodes are raylets on this machine: up to two of one CPU."""
    provider = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
    node = {"resources": {"CPU": 1, "object_store_memory": 80 << 20}, "node_config": {}, "max_workers": 2}
    return {
        "cluster_name": "scaled",
        "max_workers": 2,
        "upscaling_speed": 10,
        "idle_timeout_minutes": 5,
        "provider": {
            "type": "external",
            "module": provider,
            "head_node_id": HEAD_ID,
            "gcs_address": address,
            "launch_multiple": True,
        },
        "auth": {},
        "docker": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        **{name: [] for name in COMMANDS},
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            "worker": {**node, "min_workers": 0},
        },
        "head_node_type": "ray.head.default",
    }


@pytest.fixture
def address() -> Iterator[str]:
    """A head without CPUs, and an autoscaler."""
    (port,), head_ip = free_ports(1), ray.util.get_node_ip_address()
    place = Path(tempfile.mkdtemp(prefix="ray-"))  # sockets lie there, whose paths must be short
    file = place / "autoscaling.json"
    file.write_text(json.dumps(config(f"{head_ip}:{port}")))
    words = ["start", "--head", "--port", port, "--num-cpus", 0, "--block", "--autoscaling-config", file]
    words += ["--include-dashboard", "false", "--object-store-memory", 80 << 20, "--temp-dir", place]
    environment = {
        **os.environ,
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
        "RAY_FAKE_CLUSTER": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        **NO_TOKEN,
    }
    log = (place / "head.log").open("wb")
    head = subprocess.Popen([*RAY, *map(str, words)], env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        until(lambda: b"will now block forever" in (place / "head.log").read_bytes(), "the head")
        yield f"{head_ip}:{port}"
    finally:
        for process in (*psutil.Process(head.pid).children(recursive=True), head):
            process.kill()
        head.wait(60)
        shutil.rmtree(place, ignore_errors=True)


def test_a_batch_that_does_not_fit_yet_waits_for_its_nodes(start, reference_of_single_cores, address, tmp_path):
    refused = start("--address", address, environment=NO_TOKEN)
    assert refused.wait() == 2 and "asked for 1 CPU" in refused.told
    driver = start("--address", address, "--nodes", "2xCPU=1", "--gangs", "auto", environment=NO_TOKEN)
    assert driver.wait() == 0, driver.told
    assert "gang 0: waiting" in driver.told and "gang 1: " in driver.told
    assert {line["g"] for line in told(tmp_path / "out", "done")} == {0, 1}
    check_nothing_is_lost(tmp_path / "out", reference_of_single_cores)
