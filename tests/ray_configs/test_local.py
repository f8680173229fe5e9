"""A real Ray, started and stopped by local.sh on free ports."""

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from tests.ray_configs.ports import free_ports, is_loopback

CONFIGS = Path(__file__).parents[2] / "ray_configs"
PORTS = ("RAY_PORT", "DASHBOARD_PORT", "AGENT_PORT", "CLIENT_PORT", "METRICS_PORT")
SMALL = ("--num-cpus=1", "--object-store-memory=80000000")
pytestmark = pytest.mark.timeout(400)


class Head(NamedTuple):
    """A head that local.sh has started: how to call the script again, and what runs."""

    environment: dict[str, str]
    home: Path
    session: int

    def call(self, *arguments: str, script: str = "local.sh") -> subprocess.CompletedProcess[str]:
        command = [CONFIGS / script, *arguments]
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120)

    @property
    def processes(self) -> list[psutil.Process]:
        pids = subprocess.run(["pgrep", "--session", str(self.session)], capture_output=True, text=True).stdout
        return [psutil.Process(int(pid)) for pid in pids.split()]

    def jobs(self, token: str | None) -> int:
        """The HTTP status of asking for the list of jobs."""
        url = f"http://127.0.0.1:{self.environment['DASHBOARD_PORT']}/api/jobs/"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status
        except urllib.error.HTTPError as error:
            return error.code


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    home = tmp_path_factory.mktemp("home")
    (home / ".ray").mkdir()
    (home / ".ray/auth_token").write_text("a" * 64)  # as an earlier Ray has left it, for everyone to read
    (home / ".ray/auth_token").chmod(0o644)
    directory = Path(f"/tmp/resca-test-{os.getpid()}")  # pytest's own is too long for Ray's sockets
    ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = {**clean, "HOME": str(home), "RESCA_RAY_DIR": str(directory), **ports}
    head = Head(environment, home, 0)
    started = head.call("start", *SMALL)
    assert started.returncode == 0, started.stderr
    yield head._replace(session=int((directory / "pid").read_text()))
    head.call("stop")
    subprocess.run(["rm", "-r", directory], check=True)


def test_who_has_the_token_is_answered_and_nobody_else(head):
    token = (head.home / ".ray/auth_token").read_text()
    assert head.jobs(token) == 200
    assert head.jobs(None) == 401
    assert head.jobs("0" * len(token)) == 403


def test_only_the_owner_can_read_the_token_and_enter_the_directory(head):
    assert (head.home / ".ray/auth_token").stat().st_mode & 0o077 == 0
    assert Path(head.environment["RESCA_RAY_DIR"]).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("where", ["127.0.0.1", "auto"])
def test_who_has_the_token_can_attach_from_the_same_machine(head, where: str):
    address = "auto" if where == "auto" else f"{where}:{head.environment['RAY_PORT']}"
    temporary = {"RAY_TMPDIR": head.environment["RESCA_RAY_DIR"]} if where == "auto" else {}
    environment = {**head.environment, **temporary, "RAY_AUTH_MODE": "token"}
    command = [sys.executable, "-m", "jobs.doctor.attach", address]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60).stdout
    assert json.loads(told)["nodes"] == [{"host": "127.0.0.1", "gpus": 0, "cpus": 1}]


def test_nothing_of_it_listens_on_anything_but_loopback(head):
    addresses = [
        connection.laddr
        for process in head.processes
        for connection in process.net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]
    assert int(head.environment["DASHBOARD_PORT"]) in [address.port for address in addresses]
    assert not [address for address in addresses if not is_loopback(address.ip)]


def test_a_second_start_is_refused_and_leaves_the_first_alone(head):
    before = {process.pid for process in head.processes}
    again = head.call("start", *SMALL)
    assert again.returncode == 1 and "runs already" in again.stderr
    assert before <= {process.pid for process in head.processes}


def test_a_taken_port_is_named_instead_of_another_being_used(head, tmp_path):
    elsewhere = head._replace(environment={**head.environment, "RESCA_RAY_DIR": str(tmp_path)})
    refused = elsewhere.call("start", *SMALL)
    assert refused.returncode == 1 and f"port {head.environment['DASHBOARD_PORT']} is taken" in refused.stderr


def test_a_node_without_its_gpus_is_not_started(head):
    refused = head.call("start", script="node.sh")
    assert refused.returncode == 1 and "8 GPUs were expected" in refused.stderr


def test_stop_leaves_no_process_not_even_of_a_running_job(head):
    mark = f"600.{time.time_ns()}"
    dashboard = f"http://127.0.0.1:{head.environment['DASHBOARD_PORT']}"
    submit = ["ray", "job", "submit", "--no-wait", "--address", dashboard, "--", "sleep", mark]
    subprocess.run(submit, env={**head.environment, "RAY_AUTH_MODE": "token"}, check=True, capture_output=True)
    while not marked(mark):
        time.sleep(0.2)
    assert head.call("stop").returncode == 0
    assert not head.processes
    assert not marked(mark)
    assert "Nothing runs" in head.call("stop").stdout


def marked(mark: str) -> list[psutil.Process]:
    found = psutil.process_iter(["cmdline"])
    return [process for process in found if mark in " ".join(process.info["cmdline"] or [])]
