"""Ray is found or started, and exactly what was started is stopped. Each case runs in a driver of its own."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest
import ray

from cluster import runtime
from cluster.runtime import ClusterUnavailable, _same_imports, ray_runtime
from tests.ray_configs.ports import is_loopback

pytestmark = pytest.mark.timeout(120)

CHECKOUT = Path(__file__).parents[2]

SESSION = """
import os, pathlib, time

class Session:
    progress, beats, num_ended, overdue = 0.0, 0, 0, None

    @staticmethod
    def prepare(context):
        pass

    def __init__(self, context):
        print("noise from a worker", flush=True)

    def run(self, item, attempt):
        (pathlib.Path(__file__).parent / f"pid-{os.getpid()}").touch()
        time.sleep(item)
        if item < 0.1:
            raise ValueError("a poison item")
        return item

    def close(self):
        pass
"""

DRIVER = """
import sys
from cluster.batch import run_batch
from cluster.placement import GangSpec
from cluster.runtime import ray_runtime
from own_session import Session

if __name__ == "__main__":
    address, seconds = sys.argv[1], float(sys.argv[2])
    with ray_runtime(address or None, num_cpus=None if address else 1):
        outcomes = run_batch(spec=GangSpec(), gangs=1, workload=Session, items=[seconds])
    print("outcome:", outcomes[0].result)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Code that is not installed, on no path but the driver's; in `here` a file hides a module of Python's."""
    (tmp_path / "own_session.py").write_text(SESSION)
    (tmp_path / "driver.py").write_text(DRIVER)
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "queue.py").write_text("x = 1\n")
    return tmp_path


@pytest.fixture
def drive(project: Path) -> Iterator:
    """Starts the driver with an address ("" for none) and the seconds that its one item takes."""
    drivers: list[subprocess.Popen] = []

    def start(address: str, seconds: float, path: str = str(CHECKOUT)) -> subprocess.Popen:
        environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
        environment |= {"PYTHONPATH": path, "RAY_LOG_TO_DRIVER": "0"}
        command = [sys.executable, str(project / "driver.py"), address, str(seconds)]
        output = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        listen = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # shells start background jobs deaf to it
        drivers.append(
            subprocess.Popen(command, cwd=project / "here", env=environment, preexec_fn=listen, umask=0o027, **output)
        )
        return drivers[-1]

    yield start
    for driver in drivers:
        driver.kill()
        driver.wait()


def worker_pid(folder: Path) -> int:
    """The process that runs the item; waits until it does."""
    deadline = time.monotonic() + 60
    while not list(folder.glob("pid-*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    [path] = folder.glob("pid-*")
    return int(path.name.removeprefix("pid-"))


def raylet_of(pid: int) -> int:
    """The parent of a worker."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def are_gone(*pids: int, patience_s: float = 20) -> bool:
    deadline = time.monotonic() + patience_s
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(Path(f"/proc/{pid}").exists() for pid in pids)


@pytest.mark.slow
def test_workers_import_what_is_not_installed_and_keep_their_noise(project: Path, drive):
    driver = drive("", 0.5)
    output, _ = driver.communicate()
    assert output == "outcome: 0.5\n"
    assert driver.returncode == 0
    assert are_gone(worker_pid(project))


@pytest.mark.slow
def test_a_traceback_reaches_the_terminal(drive):
    output, _ = drive("", 0).communicate()
    assert 'raise ValueError("a poison item")' in output
    assert "own_session.py" in output
    assert "noise" not in output


@pytest.mark.parametrize(
    ("signum", "exit_code"),
    [
        (signal.SIGTERM, 143),
        pytest.param(signal.SIGINT, -signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(signal.SIGHUP, 129, marks=pytest.mark.slow),
    ],
)
def test_a_signal_tears_down_what_was_started(project: Path, drive, signum: int, exit_code: int):
    driver = drive("", 60)
    worker = worker_pid(project)
    raylet = raylet_of(worker)
    driver.send_signal(signum)
    driver.communicate()
    assert driver.returncode == exit_code
    assert are_gone(worker, raylet)


@pytest.fixture
def heard() -> Iterator[None]:
    """As in a terminal: what has started these tests may ignore SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is started; what signals do is the same."""
    monkeypatch.setattr(runtime, "_start_embedded", lambda num_cpus: None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.mark.parametrize(("signum", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_to_end_unwinds_once(no_ray, heard, signum: int, exit_code: int):
    before = signal.getsignal(signum)
    with pytest.raises(SystemExit) as stop, ray_runtime():
        try:
            os.kill(os.getpid(), signum)
        finally:
            os.kill(os.getpid(), signal.SIGHUP)  # as a closing terminal does, to all that is left
    assert stop.value.code == exit_code
    assert signal.getsignal(signum) == before


def test_what_nohup_ignores_stays_ignored(no_ray):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with ray_runtime():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.slow
def test_a_worker_that_dies_at_its_start_shows_its_own_error(project: Path, drive, tmp_path: Path):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "sitecustomize.py").write_text(
        "import os, sys\nif 'default_worker' in ' '.join(sys.orig_argv):\n"
        "    print('ImportError: no SimpleQueue', file=sys.stderr, flush=True)\n    os._exit(1)\n"
    )
    output, _ = drive("", 0.5, f"{tmp_path / 'own'}:{CHECKOUT}").communicate()
    assert "The process of a rank ended at its start: ImportError: no SimpleQueue" in output


def test_an_attached_cluster_is_used_and_left_running(project: Path, drive):
    with ray_runtime(num_cpus=1):
        with ray_runtime():  # the same
            pass
        assert ray.is_initialized()
        assert not [address for address in listening() if not is_loopback(address.ip)]
        output, _ = drive(ray.get_runtime_context().gcs_address, 0.5).communicate()
        assert output == "outcome: 0.5\n"
        assert are_gone(worker_pid(project))
        [written] = project.glob("pid-*")
        assert written.stat().st_mode & 0o777 == 0o640  # as the driver's own files, not as those of this Ray
        assert ray.cluster_resources()["CPU"] == 1
    assert not ray.is_initialized()


def listening() -> list[NamedTuple]:
    """Where this process and all that it has started can be reached."""
    own = psutil.Process()
    connections = [entry for one in [own, *own.children(recursive=True)] for entry in one.net_connections("tcp")]
    return [entry.laddr for entry in connections if entry.status == psutil.CONN_LISTEN]


def test_a_cluster_that_does_not_answer_is_named():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(ClusterUnavailable, match=f"No Ray cluster answers at {address}"), ray_runtime(address):
            pass


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
def test_a_port_of_something_else_is_told_from_ray(answer: bytes):
    def reply() -> None:
        connection, _ = server.accept()
        with connection:
            connection.recv(1024)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=reply, daemon=True).start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ClusterUnavailable, match="is not Ray"), ray_runtime(address):
            pass


def test_a_malformed_address_is_refused():
    with pytest.raises(ValueError, match="'somewhere' is malformed"), ray_runtime("somewhere"):
        pass


def test_the_current_directory_is_on_the_workers_path_only_if_it_is_needed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), "/usr", str(CHECKOUT), *sys.path])
    path = _same_imports()["env_vars"]["PYTHONPATH"].split(os.pathsep)
    assert str(tmp_path) not in path and str(CHECKOUT) in path
    monkeypatch.chdir(CHECKOUT)
    assert str(CHECKOUT) in _same_imports()["env_vars"]["PYTHONPATH"].split(os.pathsep)
