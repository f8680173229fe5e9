"""A Ray node in a network namespace of its own, whose link a test can cut."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from ray.cluster_utils import Cluster

from tests.jobs.survival.harness import until

NAMESPACE, LINK, NEAR, FAR = "resca-far", "resca-near", "10.77.0.1", "10.77.0.2"


@contextmanager
def far_node(cluster: Cluster) -> Iterator[str]:
    """Joins the cluster from the other end of a link; skips where the machine does not allow it."""
    _run("ip", "netns", "del", NAMESPACE, check=False)
    _run("ip", "link", "del", LINK, check=False)
    made = _run("ip", "netns", "add", NAMESPACE, check=False)
    if made.returncode:
        pytest.skip(f"network namespaces cannot be made here: {made.stderr.strip()}")
    try:
        _run("ip", "link", "add", LINK, "type", "veth", "peer", "name", "far", "netns", NAMESPACE)
        _run("ip", "address", "add", f"{NEAR}/24", "dev", LINK)
        _run("ip", "link", "set", LINK, "up")
        for words in (["address", "add", f"{FAR}/24", "dev", "far"], ["link", "set", "far", "up"]):
            _run("ip", "-n", NAMESPACE, *words)
        _run("ip", "-n", NAMESPACE, "link", "set", "lo", "up")
        _run("ip", "-n", NAMESPACE, "route", "add", "default", "via", NEAR)
        node = _start_node(cluster)
        try:
            until(lambda: _has_joined(cluster), "the far node to join")
            yield LINK
        finally:
            _stop(node)
    finally:
        _run("ip", "netns", "del", NAMESPACE, check=False)
        _run("ip", "link", "del", LINK, check=False)


def _start_node(cluster: Cluster) -> subprocess.Popen:
    start = ["start", "--address", cluster.address, "--num-cpus", "1", "--node-ip-address", FAR, "--block"]
    start += ["--object-store-memory", str(80 << 20)]
    command = ["ip", "netns", "exec", NAMESPACE, sys.executable, "-m", "ray.scripts.scripts", *start]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ))


def _has_joined(cluster: Cluster) -> bool:
    code = (
        "import ray, sys; ray.init(address=sys.argv[1], logging_level='ERROR', log_to_driver=False)\n"
        "sys.exit(not any(node['Alive'] and node['NodeManagerAddress'] == sys.argv[2] for node in ray.nodes()))"
    )
    return not _run(sys.executable, "-c", code, cluster.address, FAR, check=False).returncode


def _stop(node: subprocess.Popen) -> None:
    """With all that it has started; Ray's processes leave its process group."""
    processes = [*psutil.Process(node.pid).children(recursive=True), psutil.Process(node.pid)]
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    node.wait(30)


def _run(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, capture_output=True, text=True, check=check, timeout=60, cwd=Path("/"))
