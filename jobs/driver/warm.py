"""Gangs that outlive their batch: what tells which of them a batch can take."""

import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path

from cluster.environment import ray_address
from cluster.keep_warm import KeepWarm
from cluster.placement import GangSpec
from jobs.errors import BadInput
from jobs.options.batch import RenderOptions
from jobs.rank.workload import RenderWorkload
from jobs.store.items import VERSIONED, slug

ROOT = Path(__file__).parents[2]
PACKAGES = ("caching", "parallel", "cluster", "jobs")


def check_stays(options: RenderOptions) -> None:
    """Raises BadInput if gangs are to outlive the batch on a Ray that ends with it."""
    if options.keep_warm is None or ray_address(options.address):
        return
    import ray

    if not ray.is_initialized():
        raise BadInput("--keep-warm needs a Ray that stays: start one (ray start --head), and give --address auto")


def keep_warm(options: RenderOptions, workload: RenderWorkload, spec: GangSpec) -> KeepWarm | None:
    """How the gangs of a batch are kept; None if they end with it."""
    if options.keep_warm is None:
        return None
    key = key_of(workload, spec, options.cpus_per_rank)
    return KeepWarm(key=key, lease_s=60 * options.keep_warm, priority=options.priority)


def key_of(workload: RenderWorkload, spec: GangSpec, cpus_per_rank: int | str) -> str:
    """The model, and a hash of all else that has to be the same for a gang to serve a batch.

    How many CPUs ranks have counts where it was asked for: by itself it depends on how many gangs there are to be.
    """
    ranks = {"ranks": spec.world_size, "together": spec.together, "gpus": spec.num_gpus_per_rank, "cpus": cpus_per_rank}
    said = {"loads": workload.loads, **ranks, "env": dict(spec.env), "code": _code()}
    digest = hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()
    return f"{slug(workload.settings.model)}-{digest[:16]}"


@cache
def _code() -> str:
    """A hash of what runs: this project's own files, and the versions of what it is built on."""
    digest = hashlib.sha256(json.dumps({package: version(package) for package in VERSIONED}).encode())
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            digest.update(f"{path.relative_to(ROOT)}\n".encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
