"""Attaching to a Ray cluster, or starting an embedded one and stopping exactly what was started."""

import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import ray
from ray._common.network_utils import get_localhost_ip  # pyright: ignore[reportAttributeAccessIssue]
from ray._private import ray_constants
from ray._private import worker as ray_worker
from ray._private.authentication.authentication_token_setup import maybe_enable_token_auth_if_token_available
from ray.exceptions import RayError
from ray.job_config import JobConfig

from cluster.attaching import ClusterUnavailable, ask, is_loopback, locate, why_not
from cluster.cpus import usable_cpus
from cluster.environment import environment, ray_address
from cluster.host import OBJECT_STORE_BYTES, obstacles, temporary_directory
from cluster.signals import bounded, deaf_to_hang_ups, ending_in_order, handled, take_note
from cluster.stderr import give_stderr_back
from cluster.token import keep_private, own_token

__all__ = ["ClusterUnavailable", "ray_runtime"]

ATTACH_TIMEOUT_S, START_TIMEOUT_S, END_TIMEOUT_S = 28, 60, 60
PROJECT = str(Path(__file__).parents[1])
# A Ray that ends with its batch is looked into by nobody, and what it does for that it takes from the ranks: idle
# workers for tasks to come alone cost 1.6% of a core, statistics of its own events and tasks half of that.
EMBEDDED = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_prestart_worker_first_driver": "0",
    "RAY_event_stats": "0",
    "RAY_task_events_report_interval_ms": "0",
}


@contextmanager
def ray_runtime(
    address: str | None = None, *, num_cpus: int | None = None, give_up: Callable[[str], None] | None = None
) -> Iterator[None]:
    """A running Ray for the block: the cluster at `address` (or RAY_ADDRESS), else an embedded local one.

    `num_cpus` sizes the embedded one (all that this process may use if None). SIGTERM in the block becomes
    SystemExit(143), SIGHUP SystemExit(129) unless it is ignored (nohup), so that everything is torn down on the way
    out. A Ray that runs already is used and left running. `give_up` is called, in another thread, with a sentence if
    Ray hangs where nothing can interrupt it; it is to end the process, which happens in any case.

    Raises ClusterUnavailable if the cluster does not answer or none can start, ValueError for a malformed address.
    """
    if ray.is_initialized():
        yield
        return
    keep_private()
    address = ray_address(address) or "local"
    with ExitStack() as stack:
        if address == "local":
            stack.enter_context(own_token())
        stack.enter_context(ending_in_order())
        stack.callback(_end)
        _begin(address, num_cpus, give_up)
        # Ray has put its own handler, which ends with another exit code.
        stack.enter_context(ending_in_order())
        yield


def _begin(address: str, num_cpus: int | None, give_up: Callable[[str], None] | None) -> None:
    is_own = address == "local"
    timeout_s = START_TIMEOUT_S if is_own else ATTACH_TIMEOUT_S
    what = "Ray did not start on this machine" if is_own else f"The Ray cluster at {address} lets nobody attach"
    leave = partial(_leave, give_up, f"{what} within {timeout_s} s; resca doctor may tell why.")
    try:
        with bounded(timeout_s, leave):
            _start_embedded(num_cpus) if is_own else _attach(locate(address))
    except SystemExit as end:
        if end.code == signal.SIGTERM:  # By Ray's own handler.
            raise SystemExit(128 + signal.SIGTERM) from end
        raise


def _end() -> None:
    """Ends Ray, whatever signals come meanwhile: one that comes twice ends the process instead."""
    deaf = {signal.SIGTERM: take_note, signal.SIGINT: take_note, signal.SIGHUP: signal.SIG_IGN}
    with handled(deaf), bounded(END_TIMEOUT_S, partial(os._exit, 1)):
        _end_monitor()
        ray.shutdown()


def _end_monitor() -> None:
    """An embedded Ray's autoscaler has nothing to do, and would only end after a second, by force."""
    if (node := ray_worker._global_node) is not None:
        node.kill_monitor(check_alive=False)


def _leave(give_up: Callable[[str], None] | None, sentence: str) -> None:
    give_stderr_back()
    if give_up:
        give_up(sentence)
    print(sentence, file=sys.stderr, flush=True)
    os._exit(1)


def _start_embedded(num_cpus: int | None) -> None:
    for obstacle in obstacles():
        raise ClusterUnavailable(f"{obstacle}.")
    place = temporary_directory()
    assert isinstance(place, Path)
    try:
        with environment(EMBEDDED), _loopback_stays(), deaf_to_hang_ups():
            ray.init(
                address="local",
                num_cpus=num_cpus or usable_cpus(),
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.CRITICAL,
                job_config=_OwnPath(),
                runtime_env=_same_imports(),
                _node_ip_address=get_localhost_ip(),
                _temp_dir=str(place),
            )
    except Exception as error:  # Ray raises of many kinds, bare Exception among them.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
        raise ClusterUnavailable(
            f"Ray could not start on this machine: {reason}; resca doctor may tell why, or its logs in "
            f"{place}/session_latest/logs."
        ) from error


def _attach(address: str) -> None:
    # Inside a Ray job the job's own runtime environment brings the code to the workers.
    own = (
        {}
        if "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ
        else {"job_config": _OwnPath(), "runtime_env": _same_imports()}
    )
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    try:
        with ExitStack() as stack:
            if is_loopback(address):
                stack.enter_context(_loopback_stays())
                maybe_enable_token_auth_if_token_available(warn_if_disabled=False)
            ask(address)
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **own)
    except ClusterUnavailable:
        raise
    except (ConnectionError, RuntimeError, RayError) as error:
        raise ClusterUnavailable(why_not(address, error)) from error


@contextmanager
def _loopback_stays() -> Iterator[None]:
    """Ray otherwise makes 127.0.0.1 the address of an interface, unless it takes the machine for one without clusters.

    https://github.com/ray-project/ray/issues/18730
    """
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        with environment({ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}):
            yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


class _OwnPath(JobConfig):
    """Keeps Ray from putting the current directory before everything else that workers import."""

    def _runtime_env_has_working_dir(self) -> bool:
        return True


def _same_imports() -> dict[str, dict[str, str]]:
    """Workers can import what this process can, also from a checkout that is not installed.

    The current directory is left out if it is on the path only because it is the current one: PYTHONPATH comes before
    Python's own modules, which a file there may be named like.
    """
    main = getattr(sys.modules["__main__"], "__file__", None)
    needed = {PROJECT, os.path.dirname(os.path.abspath(main)) if main else PROJECT}
    left_out = {os.getcwd()} - needed
    folders = [folder for folder in map(os.path.abspath, sys.path) if folder not in left_out and os.path.isdir(folder)]
    own = [folder for folder in folders if not _is_installed(folder)]
    return {"env_vars": {"PYTHONPATH": os.pathsep.join(dict.fromkeys(own))}}


def _is_installed(folder: str) -> bool:
    return any(Path(folder).is_relative_to(prefix) for prefix in (sys.prefix, sys.base_prefix))
