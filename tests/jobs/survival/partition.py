"""A Ray node in a network namespace of its own, whose link a test can cut."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest
from ray.cluster_utils import Cluster

from tests.jobs.survival.harness import until
from tests.link import run

NAMESPACE, LINK, NEAR, FAR = "resca-far", "resca-near", "10.77.0.1", "10.77.0.2"


@contextmanager
def far_node(cluster: Cluster) -> Iterator[str]:
    """Joins the cluster from the other end of a link; skips where the machine does not allow it."""
    run("ip", "netns", "del", NAMESPACE, check=False)
    run("ip", "link", "del", LINK, check=False)
    made = run("ip", "netns", "add", NAMESPACE, check=False)
    if made.returncode:
        pytest.skip(f"network namespaces cannot be made here: {made.stderr.strip()}")
    try:
        run("ip", "link", "add", LINK, "type", "veth", "peer", "name", "far", "netns", NAMESPACE)
        run("ip", "address", "add", f"{NEAR}/24", "dev", LINK)
        run("ip", "link", "set", LINK, "up")
        for words in (["address", "add", f"{FAR}/24", "dev", "far"], ["link", "set", "far", "up"]):
            run("ip", "-n", NAMESPACE, *words)
        run("ip", "-n", NAMESPACE, "link", "set", "lo", "up")
        run("ip", "-n", NAMESPACE, "route", "add", "default", "via", NEAR)
        with node_in(NAMESPACE, FAR, cluster):
            yield LINK
    finally:
        run("ip", "netns", "del", NAMESPACE, check=False)
        run("ip", "link", "del", LINK, check=False)


@contextmanager
def node_in(namespace: str, address: str, cluster: Cluster) -> Iterator[None]:
    """A node with one CPU that joins the cluster from a namespace, where it has this address."""
    start = ["start", "--address", cluster.address, "--num-cpus", "1", "--node-ip-address", address, "--block"]
    start += ["--object-store-memory", str(80 << 20)]
    command = ["ip", "netns", "exec", namespace, sys.executable, "-m", "ray.scripts.scripts", *start]
    node = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ))
    try:
        until(lambda: _has_joined(cluster, address), f"the node {address} to join")
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
