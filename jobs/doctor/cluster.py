"""The Ray cluster: whether it answers, in which version, who may use it, and what its nodes have."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TypedDict

import psutil

from cluster.environment import ray_address
from cluster.host import obstacles
from cluster.token import default_file
from jobs.doctor.finding import Finding, ok, problem, warning
from jobs.doctor.machine import existing
from jobs.doctor.rdma import between_nodes
from jobs.options.batch import DoctorOptions
from jobs.store.open import directory_of

ATTACH_TIMEOUT_S = 30
SHARED_FILE_SYSTEMS = ("nfs", "nfs4", "lustre", "gpfs", "beegfs", "ceph", "cifs", "smb3", "9p", "glusterfs", "afs")
TOKEN_DOCUMENTATION = "https://docs.ray.io/en/latest/ray-security/token-auth.html"
# By what the error says.
REMEDIES = {
    "ray clients": "leave out ray:// on a machine of the cluster, or use resca submit from elsewhere",
    "dashboard": "--address and RAY_ADDRESS take HOST:6379 or auto; resca submit takes the dashboard's URL",
    "malformed": "--address and RAY_ADDRESS take HOST:6379 or auto",
    "no ray cluster": "start one (ray start --head), name the right address, or look at the firewall between",
    "not ray": "name the head's port: 6379, or that of ray start --port",
    "version mismatch": "install the same Ray and Python on this machine and on all nodes",
    "not a node": "use resca submit from here, or join this machine to the cluster (ray start --address)",
    "lets nobody attach": "run this on a node of the cluster, and look at its logs in /tmp/ray/session_latest",
    "failed to connect": "compare the tokens (ray get-auth-token) and look at the head's logs: something answers there",
    "token": f"copy the cluster's token to ~/.ray/auth_token on this machine, see {TOKEN_DOCUMENTATION}",
}


class Node(TypedDict):
    """A node that is alive."""

    host: str
    gpus: int
    cpus: float


class Answer(TypedDict, total=False):
    """What `jobs.doctor.attach` prints: one of both."""

    nodes: list[Node]
    error: str


def check_cluster(options: DoctorOptions) -> Iterator[Finding]:
    """Attach to the cluster, if one is named, and look at its nodes."""
    if not (address := address_of(options)):
        found = [problem(obstacle.found, obstacle.remedy) for obstacle in obstacles()]
        yield from found or [ok(f"Ray {version('ray')}; no cluster is named, so `render` starts a Ray of its own here")]
        return
    answer = _ask(address)
    if error := answer.get("error"):
        yield problem(error, remedy_for(error))
        return
    nodes = answer.get("nodes", [])
    yield ok(f"{address} answers with Ray {version('ray')} and Python as here")
    yield _gpus(nodes)
    yield from between_nodes(len(nodes))
    if len(nodes) > 1 and options.out:
        yield from _shared(options.out, len(nodes))


def address_of(options: DoctorOptions) -> str | None:
    """The cluster that `render` would attach to."""
    return ray_address(options.address)


def _ask(address: str) -> Answer:
    """The nodes, or the error, of a cluster; Ray itself may try for minutes or end the process."""
    command = [sys.executable, "-P", "-m", "jobs.doctor.attach", address]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    try:
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=ATTACH_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        return {"error": f"The Ray cluster at {address} lets nobody attach from here in {ATTACH_TIMEOUT_S} s."}
    if done.returncode and not done.stdout.strip():
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"error": f"Attaching to {address} ended with exit code {done.returncode}: {last}"}
    return json.loads(done.stdout.splitlines()[-1])


def remedy_for(error: str) -> str:
    """What helps against an error of attaching."""
    other = "run this on a node of the cluster (ray start --address), and look at its logs in /tmp/ray/session_latest"
    return next((remedy for sign, remedy in REMEDIES.items() if sign in error.lower()), other)


def _gpus(nodes: list[Node]) -> Finding:
    by_node = ", ".join(f"{node['host']}: {node['gpus']}" for node in nodes)
    found = f"{len(nodes)} nodes alive; GPUs by node {by_node}" if len(nodes) > 1 else f"1 node alive, {by_node} GPUs"
    if len({node["gpus"] for node in nodes if node["gpus"]}) > 1:
        return warning(found, "--ulysses ranks share a node: choose one that divides the GPUs of each")
    return ok(found)


def _shared(out: str, num_nodes: int) -> Iterator[Finding]:
    """Whether all nodes can see the output directory; only its file system can be told from here."""
    directory = directory_of(out)
    if directory is None:
        return
    kind = _file_system(directory)
    if kind.removeprefix("fuse.") in SHARED_FILE_SYSTEMS:
        yield ok(f"{directory} is on {kind}, which other nodes can mount")
        return
    yield warning(
        f"{directory} is on {kind}, which {num_nodes} nodes hardly share",
        f"touch {directory}/seen here, look for it on another node; else use a path that all mount, or s3://...",
    )


def _file_system(path: Path) -> str:
    place = existing(path).resolve()
    mounts = {mount.mountpoint: mount.fstype for mount in psutil.disk_partitions(all=True)}
    return next((mounts[str(folder)] for folder in (place, *place.parents) if str(folder) in mounts), "a file system")


def check_token(options: DoctorOptions) -> Iterator[Finding]:
    """Whether the cluster's jobs are guarded, and whether others can read the token."""
    mode, place = os.environ.get("RAY_AUTH_MODE", "").lower(), _token_file()
    present = bool(os.environ.get("RAY_AUTH_TOKEN") or (place and place.is_file()))
    if mode == "token" and not present:
        yield problem(
            f"RAY_AUTH_MODE=token, but no token in {place}", "copy the cluster's, or: ray get-auth-token --generate"
        )
    elif mode == "disabled" or not present:
        yield _unguarded(options, f"RAY_AUTH_MODE={mode}" if mode else "no token")
    else:
        yield ok("in RAY_AUTH_TOKEN" if os.environ.get("RAY_AUTH_TOKEN") else f"in {place}")
    if place and place.is_file() and place.stat().st_mode & 0o077:
        yield warning(f"others can read {place}", f"chmod 600 {place}")


def _token_file() -> Path | None:
    """Where Ray looks, after RAY_AUTH_TOKEN; None for a user without a home directory."""
    named = os.environ.get("RAY_AUTH_TOKEN_PATH")
    return Path(named) if named else default_file()


def _unguarded(options: DoctorOptions, why: str) -> Finding:
    if not address_of(options):
        return ok(f"{why}; none is needed on one machine")
    return warning(
        f"{why}: who reaches the cluster can run code on it", f"RAY_AUTH_MODE=token, see {TOKEN_DOCUMENTATION}"
    )
