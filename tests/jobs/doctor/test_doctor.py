"""The doctor looks at this machine and at real Ray clusters; each finding that is not ok names a remedy."""

import json
import os
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
import ray
from ray.cluster_utils import Cluster

from jobs.__main__ import main
from jobs.doctor import CHECKS, machine, network, packages
from jobs.doctor.cluster import check_cluster, check_token
from jobs.doctor.files import check_model, check_output
from jobs.options.batch import DoctorOptions
from tests.jobs.doctor.findings import DOCTOR, only
from tests.jobs.models.test_facts import make_model

pytestmark = pytest.mark.timeout(120)


def examine(tmp_path: Path, *arguments: str) -> tuple[int, dict[str, list[dict[str, str]]]]:
    """The exit code, and the rows by check."""
    rows = tmp_path / "rows.json"
    code = main(["doctor", "--json", str(rows), *arguments])
    by_check: dict[str, list[dict[str, str]]] = {}
    for row in json.loads(rows.read_text()):
        by_check.setdefault(row["check"], []).append(row)
    return code, by_check


def problems(rows: dict[str, list[dict[str, str]]]) -> dict[str, str]:
    return {check: row["found"] for check, found in rows.items() for row in found if row["verdict"] == "problem"}


def test_healthy_machine_has_a_row_a_check_and_no_problem(tmp_path, capsys):
    code, rows = examine(tmp_path, "--out", str(tmp_path / "out"))
    assert (code, problems(rows)) == (0, {})
    assert set(rows) == set(CHECKS)
    assert all((row["verdict"] == "ok") == (row["remedy"] == "") for found in rows.values() for row in found)
    assert "0 problems" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_check_that_crashes_is_a_finding_and_the_others_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(packages, "PROJECT", "resca-not-installed")
    monkeypatch.setattr(packages, "PYPROJECT", tmp_path / "none.toml")
    code, rows = examine(tmp_path)
    assert code == 0
    assert "the check itself failed: FileNotFoundError" in rows["packages"][0]["found"]
    assert rows["ffmpeg"][0]["verdict"] == "ok"


def test_address_where_nothing_listens(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        code, rows = examine(tmp_path, "--address", address)
    assert code == 2
    assert problems(rows) == {"ray": f"No Ray cluster answers at {address}: Connection refused."}
    assert "ray start --head" in rows["ray"][0]["remedy"]


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", None])
def test_port_where_something_else_listens(tmp_path, answer):
    def reply() -> None:
        connection, _ = server.accept()
        if answer is not None:
            connection.sendall(answer)
        done.wait(60)
        connection.close()

    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=reply, daemon=True).start()
        code, rows = examine(tmp_path, "--address", f"127.0.0.1:{server.getsockname()[1]}")
        done.set()
    assert code == 2
    assert "is not Ray" in problems(rows)["ray"] or "timed out" in problems(rows)["ray"]


def test_malformed_address(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "http://127.0.0.1")
    code, rows = examine(tmp_path)
    assert code == 2 and "RAY_ADDRESS=http://127.0.0.1 is that of a dashboard" in problems(rows)["ray"]
    assert "HOST:6379" in rows["ray"][0]["remedy"]


@pytest.mark.parametrize("name", ["x" * 300, "new/" + "x" * 300])
def test_an_output_directory_of_a_name_that_nothing_can_have(tmp_path, name):
    options = DoctorOptions(out=str(tmp_path / name))
    found = only(check_output(options))
    assert found.verdict == "problem" and "File name too long" in found.found
    assert len(list(machine.check_disk(options))) == 3


def test_output_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("x")
    code, rows = examine(tmp_path, "--out", str(tmp_path / "file" / "out"))
    assert code == 2
    assert "is not a directory" in problems(rows)["output"]


def test_model_files_that_are_not_whole_are_named(tmp_path):
    model = make_model(tmp_path / "m")
    assert only(check_model(DoctorOptions(model=str(model)))).verdict == "ok"
    weights = model / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    finding = only(check_model(DoctorOptions(model=str(model))))
    assert finding.verdict == "problem" and str(weights) in finding.found
    weights.rename(weights.with_suffix(".fp16.safetensors"))
    assert "--variant fp16 takes them" in only(check_model(DoctorOptions(model=str(model)))).found
    shutil.rmtree(model / "vae")
    assert only(check_model(DoctorOptions(model=str(model)))).verdict == "problem"


def test_a_variant_is_looked_for(tmp_path):
    model = make_model(tmp_path / "m")
    weights = model / "vae" / "diffusion_pytorch_model.safetensors"
    weights.rename(weights.with_suffix(".fp16.safetensors"))
    assert only(check_model(DoctorOptions(model=str(model), variant="fp16"))).verdict == "ok"


def test_hub_model_that_is_nowhere_is_a_problem_and_nothing_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    finding = only(check_model(DoctorOptions(model="nobody/such-a-model")))
    assert finding.verdict == "problem" and finding.remedy
    assert not list(tmp_path.iterdir())


def test_hub_model_in_the_cache_is_enough(tmp_path, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    repository = tmp_path / "models--owner--name"
    make_model(repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    finding = only(check_model(DoctorOptions(model="owner/name")))
    assert finding.verdict == "ok" and finding.found.endswith("snapshots/abc")
    weights = repository / "snapshots" / "abc" / "transformer" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(b"")
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    finding = only(check_model(DoctorOptions(model="owner/name")))
    assert finding.verdict == "problem" and str(weights) in finding.found and "hub does not answer" in finding.found


def test_taken_port_is_named_with_its_owner_and_a_remedy():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = network.Port(number=server.getsockname()[1], what="Ray's head", option="--port")
        finding = network.look_at(port, network.listening())
    assert finding.verdict == "warning"
    assert f"{port.number} (Ray's head) is taken by" in finding.found and "py" in finding.found
    assert finding.remedy.endswith("ray start --head --port=NUMBER")
    assert network.look_at(port, network.listening()).verdict == "ok"


def test_interface_that_does_not_exist_is_a_problem(monkeypatch):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "ib77")
    first = next(network.check_interfaces(DOCTOR))
    assert first.verdict == "problem" and first.found.startswith("GLOO_SOCKET_IFNAME=ib77 names no interface")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    assert next(network.check_interfaces(DOCTOR)).verdict != "problem"


def test_package_in_another_version_or_missing_is_a_problem(tmp_path, monkeypatch):
    pyproject = tmp_path / "pyproject.toml"
    lines = '"ray[default]~=1.0", "no-such-package>=1", "numpy", "cuda-toy; sys_platform == \'toy\'"'
    pyproject.write_text(f'[project]\nrequires-python = ">=3.11"\ndependencies = [{lines}]\n')
    monkeypatch.setattr(packages, "PYPROJECT", pyproject)
    monkeypatch.setattr(packages, "PROJECT", "resca-not-installed")
    ray_row, missing = packages.check_packages(DOCTOR)
    assert ray_row.found == f"ray is {ray.__version__}, needed is ~=1.0"
    assert missing.found == "no-such-package is not installed"
    assert missing.remedy == "pip install 'no-such-package>=1'"


def test_token_is_looked_for_where_ray_does(tmp_path, monkeypatch):
    token = tmp_path / "token"
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    assert only(check_token(DOCTOR)).verdict == "ok"
    assert only(check_token(DoctorOptions(address="10.0.0.1:6379"))).verdict == "warning"
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    assert only(check_token(DOCTOR)).verdict == "problem"
    token.touch(mode=0o600)
    assert only(check_token(DOCTOR)).verdict == "ok"
    token.chmod(0o644)
    assert list(check_token(DOCTOR))[1].remedy == f"chmod 600 {token}"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    assert next(check_token(DoctorOptions(address="10.0.0.1:6379"))).verdict == "warning"


def test_what_keeps_ray_from_starting_here_is_a_problem(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", f"/tmp/{'x' * 90}")
    finding = only(check_cluster(DOCTOR))
    assert finding.verdict == "problem" and "longer than 43 bytes" in finding.found
    assert finding.remedy == "set RAY_TMPDIR to a short path on a disk where you may write"


def test_a_user_without_a_home_has_no_token(monkeypatch):
    for name in ("HOME", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)  # of no entry in /etc/passwd
    assert only(check_token(DOCTOR)).verdict == "ok"


@pytest.fixture(scope="module")
def real_ray() -> Iterator[tuple[str, int]]:
    """The address of a Ray with a token, and the port of its dashboard, which is open on all interfaces."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ray.init(address="local", num_cpus=1, dashboard_host="0.0.0.0", dashboard_port=port, include_dashboard=True)
    yield ray.get_runtime_context().gcs_address, port
    ray.shutdown()


def test_real_ray_answers_and_an_open_dashboard_is_a_warning(tmp_path, real_ray):
    address, port = real_ray
    code, rows = examine(tmp_path, "--address", address)
    assert (code, problems(rows)) == (0, {})
    assert rows["ray"][0]["found"] == f"{address} answers with Ray {ray.__version__} and Python as here"
    assert rows["ray"][1]["found"].startswith("1 node alive")
    open_ports = [row["found"] for row in rows["dashboard"] if row["verdict"] == "warning"]
    assert f"port {port} is open on all interfaces" in open_ports


def test_another_token_than_the_clusters_is_a_problem(tmp_path, real_ray, monkeypatch):
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "b" * 64)
    code, rows = examine(tmp_path, "--address", real_ray[0])
    assert code == 2 and "cannot be used" in problems(rows)["ray"]
    assert "it wants another token" in problems(rows)["ray"] and "token" in rows["ray"][0]["remedy"]


@pytest.mark.slow
def test_nodes_with_different_gpus_and_a_directory_that_they_may_not_share(tmp_path):
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 4})
    try:
        cluster.add_node(num_cpus=1, num_gpus=2)
        code, rows = examine(tmp_path, "--address", cluster.address, "--out", str(tmp_path / "out"))
    finally:
        cluster.shutdown()
    answer, by_node, between, shared = rows["ray"]
    assert (code, answer["verdict"]) == (0, "ok")
    assert by_node["verdict"] == "warning" and by_node["found"].startswith("2 nodes alive; GPUs by node")
    assert between["found"].startswith("2 nodes, and no RDMA device on this one: a --ring over nodes sends 44 GB")
    assert shared["verdict"] == "warning" and "2 nodes hardly share" in shared["found"]
