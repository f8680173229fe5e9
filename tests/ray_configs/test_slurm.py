"""slurm.sh with stand-ins for Slurm and for the render; the Ray between them is real: two nodes, and one that fails."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.ray_configs.ports import free_ports

SCRIPT = Path(__file__).parents[2] / "ray_configs/slurm.sh"
pytestmark = pytest.mark.timeout(400)

SCONTROL = """#!/usr/bin/env bash
tr , '\\n' <<<"$3"
"""
SRUN = """#!/usr/bin/env bash
echo "srun $*"
while [[ $1 == --* ]]; do
    [[ $1 == --nodelist=broken ]] && echo "srun: error: broken does not answer" >&2 && exit 1
    shift
done
exec "$@" --num-cpus=1 --object-store-memory=80000000
"""
# Says what it was given and what cluster it finds, and ends like a batch that is told to stop.
RESCA = f"""#!{sys.executable}
import json, os, signal, stat, sys, ray
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
ray.init(address=sys.argv[sys.argv.index("--address") + 1], log_to_driver=False, logging_level="ERROR")
node = ray.remote(num_cpus=1, scheduling_strategy="SPREAD")(lambda: ray.get_runtime_context().get_node_id())
report = {{
    "arguments": sys.argv[1:],
    "nodes": sum(node["Alive"] for node in ray.nodes()),
    "ran": ray.get(node.remote()) in [node["NodeID"] for node in ray.nodes()],
    "mode": os.environ["RAY_AUTH_MODE"],
    "token_in_environment": "RAY_AUTH_TOKEN" in os.environ,
    "token_bits": stat.S_IMODE(os.stat(os.environ["RAY_AUTH_TOKEN_PATH"]).st_mode),
}}
print("REPORT", json.dumps(report), flush=True)
signal.sigwait([signal.SIGTERM])
sys.exit(143)
"""
# Of one node, without a Ray: its head stands, and one node is counted.
STANDING_RAY = """#!/usr/bin/env bash
[[ $1 != start ]] || exec sleep 100
"""
PYTHON = f"""#!/usr/bin/env bash
[[ $1 == - ]] && echo 1 || exec {sys.executable} "$@"
"""
ECHO = """#!/usr/bin/env bash
echo "resca $*"
"""
FAILING_RAY = """#!/usr/bin/env bash
exit 1
"""


class Ended(NamedTuple):
    """A job that has come to its end: what the render said, what else was said, and how it ended."""

    report: dict
    log: str
    code: int
    left: list[str]
    home: Path


def environment(folder: Path, **stand_ins: str) -> dict[str, str]:
    for name, text in stand_ins.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "SLURM_"))}
    path = f"{folder}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    job = {"SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "first,second,broken"}
    node = {"SLURM_CPUS_ON_NODE": "96", "SLURM_SUBMIT_DIR": str(folder)}
    return {**clean, **job, **node, "PATH": path, "HOME": str(folder)}


def address() -> list[str]:
    return subprocess.run(["hostname", "--all-ip-addresses"], capture_output=True, text=True).stdout.split()


def left_after(session: int, patience_s: float) -> list[str]:
    """What still runs of a session; Ray's dashboard takes a moment to follow its head."""
    deadline = time.monotonic() + patience_s
    while True:
        pgrep = subprocess.run(["pgrep", "--session", str(session), "--list-full"], capture_output=True, text=True)
        if not pgrep.stdout or time.monotonic() > deadline:
            return pgrep.stdout.splitlines()
        time.sleep(0.2)


@pytest.fixture(scope="module", params=[pytest.param("job", marks=pytest.mark.slow)])
def ended(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ended]:
    if not address():
        pytest.skip("this machine has no address but loopback")
    home = tmp_path_factory.mktemp("slurm")
    sockets = Path(f"/tmp/slurm-test-{os.getpid()}")  # pytest's own is too long for Ray's sockets
    sockets.mkdir()
    given = environment(home, scontrol=SCONTROL, srun=SRUN, resca=RESCA)
    given |= {
        "RAY_TMPDIR": str(sockets),
        **dict(zip(("RAY_PORT", "METRICS_PORT", "DASHBOARD_PORT"), map(str, free_ports(3)), strict=True)),
    }
    log = home / "log"
    with log.open("w") as output:
        job = subprocess.Popen(
            ["bash", SCRIPT, "prompts.txt", "/shared/videos", "--ulysses", "8", "--gangs", "auto"],
            env=given, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    while job.poll() is None and "REPORT" not in log.read_text():
        time.sleep(0.2)
    job.terminate()  # what Slurm sends to the batch script a minute before the time limit
    code = job.wait()
    said = log.read_text()
    report = next((line.removeprefix("REPORT ") for line in said.splitlines() if line.startswith("REPORT")), "{}")
    yield Ended(json.loads(report), said, code, left_after(job.pid, patience_s=15), home)
    subprocess.run(["pkill", "-KILL", "--session", str(job.pid)])
    subprocess.run(["rm", "-r", sockets], check=True)


def test_the_batch_finds_the_nodes_that_started(ended):
    assert ended.report["nodes"] == 2, ended.log
    assert ended.report["ran"]


def test_a_node_that_does_not_start_is_named_and_left_out(ended):
    assert "slurm.sh: node broken did not start, the batch goes on without it." in ended.log
    assert "rendering on 2 of 3 nodes" in ended.log


def test_the_job_has_all_memory_and_every_step_all_cores_of_its_node(ended):
    assert "#SBATCH --exclusive\n#SBATCH --mem=0\n" in SCRIPT.read_text()
    for node in ("second", "broken"):
        assert f"srun --nodes=1 --ntasks=1 --nodelist={node} --cpus-per-task=96 --cpu-bind=none ray" in ended.log


def test_what_follows_prompts_and_output_reaches_the_render(ended):
    arguments = ended.report["arguments"]
    assert arguments[:4] == ["render", "prompts.txt", "--out", "/shared/videos"]
    assert arguments[4:6] == ["--yes", "--address"] and arguments[-4:] == ["--ulysses", "8", "--gangs", "auto"]


def test_the_token_is_a_file_that_only_its_owner_reads(ended):
    assert ended.report["mode"] == "token"
    assert ended.report["token_bits"] == 0o600
    assert not ended.report["token_in_environment"]


def test_the_warning_before_the_time_limit_reaches_the_render_and_its_exit_code_is_the_jobs(ended):
    assert "#SBATCH --signal=B:TERM@60\n" in SCRIPT.read_text()
    assert ended.code == 143


def test_nothing_is_left_no_process_and_no_token(ended):
    assert ended.left == []
    assert list((ended.home / ".resca").iterdir()) == []


def test_a_head_that_does_not_start_ends_the_job_as_infrastructure(tmp_path):
    given = environment(tmp_path, scontrol=SCONTROL, srun=SRUN, ray=FAILING_RAY)
    job = subprocess.run(["bash", SCRIPT, "prompts.txt", "videos"], env=given, capture_output=True, text=True)
    assert job.returncode == 33
    assert "Ray did not start on" in job.stderr
    assert list((tmp_path / ".resca").iterdir()) == []


def test_without_ray_the_job_ends_with_where_it_was_looked_for(tmp_path):
    given = {"PATH": "/usr/bin:/bin", "SLURM_SUBMIT_DIR": str(tmp_path)}
    job = subprocess.run(["bash", SCRIPT, "prompts.txt", "videos"], env=given, capture_output=True, text=True)
    assert job.returncode == 2
    assert job.stderr.startswith(f"slurm.sh: no ray and resca in {tmp_path}/.venv or in PATH; submit from the root")


def test_without_an_output_the_job_ends_with_how_it_is_used(tmp_path):
    job = subprocess.run(["bash", SCRIPT, "prompts.txt"], capture_output=True, text=True)
    assert job.returncode == 2 and "usage: sbatch" in job.stderr


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["scaling", "--layouts", "8x1,8x2"], "resca scaling --address {} --layouts 8x1,8x2"),
        (["prompts.txt", "videos"], "resca render prompts.txt --out videos --yes --address {}"),
    ],
)
def test_layouts_are_measured_as_batches_are_rendered(tmp_path, given, words):
    if not address():
        pytest.skip("this machine has no address but loopback")
    there = environment(tmp_path, scontrol=SCONTROL, ray=STANDING_RAY, python=PYTHON, resca=ECHO)
    there |= {"SLURM_JOB_NODELIST": "first"}
    job = subprocess.run(["bash", SCRIPT, *given], env=there, capture_output=True, text=True, timeout=60)
    assert job.returncode == 0, job.stderr
    assert job.stdout.strip() == words.format(f"{address()[0]}:6379")
