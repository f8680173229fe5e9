"""A Ray node that joins a cluster from a network namespace."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
from ray.cluster_utils import Cluster

from tests.link import run

JOIN_TIMEOUT_S = 120


@contextmanager
def node_in(namespace: str, address: str, cluster: Cluster) -> Iterator[None]:
    """A node with one CPU that joins the cluster from a namespace, where it has this address."""
    start = ["start", "--address", cluster.address, "--num-cpus", "1", "--node-ip-address", address, "--block"]
    start += ["--object-store-memory", str(80 << 20)]
    command = ["ip", "netns", "exec", namespace, sys.executable, "-m", "ray.scripts.scripts", *start]
    node = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ))
    try:
        deadline = time.monotonic() + JOIN_TIMEOUT_S
        while not _has_joined(cluster, address):
            assert time.monotonic() < deadline, f"the node {address} does not join"
        yield
    finally:
        _stop(node)


def _has_joined(cluster: Cluster, address: str) -> bool:
    code = (
        "import ray, sys; ray.init(address=sys.argv[1], logging_level='ERROR', log_to_driver=False)\n"
        "sys.exit(not any(node['Alive'] and node['NodeManagerAddress'] == sys.argv[2] for node in ray.nodes()))"
    )
    return not run(sys.executable, "-c", code, cluster.address, address, check=False).returncode


def _stop(node: subprocess.Popen) -> None:
    """With all that it has started; Ray's processes leave its process group."""
    processes = [*psutil.Process(node.pid).children(recursive=True), psutil.Process(node.pid)]
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    node.wait(30)
