"""`python -m jobs.doctor.attach ADDRESS`: a look at a Ray cluster, from a process of its own: attaching may end it."""

import json
import sys
from typing import TYPE_CHECKING

from cluster.runtime import ClusterUnavailable, ray_runtime

if TYPE_CHECKING:
    from jobs.doctor.cluster import Node


def main(address: str) -> None:
    """Print one line of JSON: the nodes that are alive, or the error."""
    import ray

    try:
        with ray_runtime(address, give_up=_tell):
            print(json.dumps({"nodes": [_node(node) for node in ray.nodes() if node["Alive"]]}), flush=True)
    except (ClusterUnavailable, ValueError) as error:
        _tell(str(error))


def _tell(error: str) -> None:
    print(json.dumps({"error": error}), flush=True)


def _node(node: dict) -> "Node":
    resources = node["Resources"]
    return {"host": node["NodeManagerAddress"], "gpus": int(resources.get("GPU", 0)), "cpus": resources.get("CPU", 0)}


if __name__ == "__main__":
    main(sys.argv[1])
