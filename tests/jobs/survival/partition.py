"""A Ray node in a network namespace of its own, whose link a test can cut."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from ray.cluster_utils import Cluster

from tests.cluster.node_in import node_in
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
