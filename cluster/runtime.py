"""Attaching to a Ray cluster, or starting an embedded one and stopping exactly what was started."""

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import ray
from ray.exceptions import RayError

PROBE_TIMEOUT_S = 5
STOPS = (signal.SIGTERM, signal.SIGHUP)
# What goes through Ray here are items and small results; large data go to storage.
OBJECT_STORE_BYTES = 100 * 2**20
# A Ray that ends with its batch is looked into by nobody, and what it does for that it takes from the ranks: idle
# workers for tasks to come alone cost 1.6% of a core, statistics of its own events and tasks half of that.
EMBEDDED = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_event_stats": "0",
    "RAY_task_events_report_interval_ms": "0",
}


class ClusterUnavailable(RuntimeError):
    """There is no usable Ray cluster at the address."""


@contextmanager
def ray_runtime(address: str | None = None, *, num_cpus: int | None = None) -> Iterator[None]:
    """A running Ray for the block: the cluster at `address` (or RAY_ADDRESS), else an embedded local one.

    `num_cpus` sizes the embedded one (all of the machine's if None). SIGTERM in the block becomes SystemExit(143),
    SIGHUP SystemExit(129) unless it is ignored (nohup), so that everything is torn down on the way out. A Ray that runs
    already is used and left running.

    Raises ClusterUnavailable if the cluster does not answer, ValueError for a malformed address.
    """
    if ray.is_initialized():
        yield
        return
    previous = {each: signal.getsignal(each) for each in STOPS if signal.getsignal(each) != signal.SIG_IGN}
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    try:
        _start_embedded(num_cpus) if address == "local" else _attach(address)
        _handle(dict.fromkeys(previous, _exit))
        yield
    finally:
        ray.shutdown()
        _handle(previous)


def _start_embedded(num_cpus: int | None) -> None:
    with _environment(EMBEDDED), _deaf_to_hang_ups():
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env=_same_imports(),
        )


def _attach(address: str) -> None:
    if address != "auto":
        _probe(address)
    # Inside a Ray job the job's own runtime environment brings the code to the workers.
    runtime_env = None if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ else _same_imports()
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env=runtime_env)
    except (ConnectionError, RuntimeError, RayError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ClusterUnavailable(f"The Ray cluster at {address} cannot be used: {reason}") from error


def _probe(address: str) -> None:
    """Asks for an answer first: Ray itself tries for many minutes, or ends the process."""
    if address.startswith("ray://"):
        raise ValueError(f"{address} is for Ray clients, which cannot place gangs; submit the batch as a job instead.")
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError(f"The Ray address {address!r} is malformed; give host:port or auto.")
    try:
        with socket.create_connection((host, int(port)), timeout=PROBE_TIMEOUT_S) as connection:
            speaks_grpc = _speaks_grpc(connection)
    except OSError as error:
        raise ClusterUnavailable(f"No Ray cluster answers at {address}: {error.strerror or error}.") from error
    if not speaks_grpc:
        raise ClusterUnavailable(f"What answers at {address} is not Ray; the port is 6379 unless it was changed.")


def _speaks_grpc(connection: socket.socket) -> bool:
    """Opens HTTP/2 (RFC 9113, section 3.4): the server must answer with a SETTINGS frame, which is of type 4."""
    if os.environ.get("RAY_USE_TLS", "0") != "0":
        return True  # Only a TLS client could ask.
    empty_settings = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
    connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + empty_settings)
    frame = connection.recv(9)
    return len(frame) > 3 and frame[3] == 4


def _same_imports() -> dict[str, dict[str, str]]:
    """Workers can import what this process can, also from a checkout that is not installed."""
    installed = tuple({sys.prefix, sys.base_prefix})
    folders = [os.path.abspath(folder) for folder in [".", *sys.path]]
    own = [folder for folder in folders if os.path.isdir(folder) and not _is_below(folder, installed)]
    return {"env_vars": {"PYTHONPATH": os.pathsep.join(dict.fromkeys(own))}}


def _is_below(folder: str, parents: tuple[str, ...]) -> bool:
    return any(Path(folder).is_relative_to(parent) for parent in parents)


@contextmanager
def _environment(values: Mapping[str, str]) -> Iterator[None]:
    """Sets variables for what is started in the block, but those that the user has set."""
    ours = {name: value for name, value in values.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            del os.environ[name]


def _handle(handlers: Mapping[signal.Signals, object]) -> None:
    if threading.current_thread() is threading.main_thread():
        for each, handler in handlers.items():
            signal.signal(each, handler)  # pyright: ignore[reportArgumentType]


@contextmanager
def _deaf_to_hang_ups() -> Iterator[None]:
    """What is started in the block does not end with its terminal, but with this process."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _exit(signum: int, frame: object) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # A terminal says it more than once; the first is being answered.
    raise SystemExit(128 + signum)
