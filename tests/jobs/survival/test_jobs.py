"""Batches that are submitted to a Ray with token authentication, followed, refused and stopped."""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import pytest

from tests.jobs.survival.harness import (
    RAY,
    SETTINGS,
    Driver,
    check_nothing_is_lost,
    checksums,
    is_rendering,
    ledger,
    told,
    until,
    words,
)
from tests.jobs.survival.tunnel import Tunnel
from tests.ray_configs.ports import free_ports

pytestmark = pytest.mark.timeout(600)
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4, "RAY_AUTH_TOKEN_PATH": ""}


@pytest.fixture(scope="module")
def dashboard() -> Iterator[str]:
    """The job interface of a local Ray that asks for a token."""
    gcs, dashboard, agent = free_ports(3)
    place = tempfile.mkdtemp(prefix="ray-")  # sockets lie there, whose paths must be short
    head = ["start", "--head", "--port", gcs, "--dashboard-port", dashboard, "--dashboard-agent-listen-port", agent]
    head += ["--num-cpus", 2, "--block", "--object-store-memory", 80 << 20, "--temp-dir", place]
    node = subprocess.Popen([*RAY, *map(str, head)], env={**os.environ, **TOKEN}, stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{dashboard}"
        until(lambda: _answers(url), "the dashboard")
        yield url
    finally:
        node.terminate()
        node.wait(60)
        shutil.rmtree(place, ignore_errors=True)


@pytest.fixture
def submit(dashboard: str, model: Path, steps: int, tmp_path: Path) -> Callable[..., Driver]:
    def submit(*options: object, environment: dict[str, str] = TOKEN) -> Driver:
        log, asked = tmp_path / "submit.log", words(model, tmp_path / "out", steps, tmp_path)
        return Driver("submit", *asked, "--dashboard", dashboard, *options, log=log, environment=environment)

    return submit


@pytest.fixture
def tunnel(dashboard: str) -> Iterator[Tunnel]:
    with Tunnel(int(dashboard.rpartition(":")[2])) as tunnel:
        yield tunnel


def test_a_batch_is_submitted_with_the_token_and_followed_to_its_end_though_the_connection_is_cut(
    submit, tunnel, reference, tmp_path
):
    followed = submit("--dashboard", tunnel.url)
    until(lambda: "0000: done in" in followed.told, "the first video")
    tunnel.cut()
    assert followed.wait() == 0, followed.told
    assert "uploading 0." in followed.told or "uploading 1." in followed.told  # MiB: the demo model stays here
    assert [followed.told.count(f"000{number}: done in") for number in range(4)] == [1] * 4
    assert "finished before" not in followed.told
    assert told(tmp_path / "out", "begin")[0]["job"] in followed.told
    check_nothing_is_lost(tmp_path / "out", reference)


def test_without_the_token_it_is_refused_with_a_remedy(submit, tmp_path):
    for environment in ({"RAY_AUTH_MODE": "disabled"}, {**TOKEN, "RAY_AUTH_TOKEN": "f" * 64}):
        refused = submit(environment=environment)
        assert refused.wait() == 2, refused.told
        sentence = refused.told.strip().splitlines()[-1]
        assert sentence.startswith("resca: the cluster at http://") and "set RAY_AUTH_MODE=token" in sentence
    assert not (tmp_path / "out").exists()


def test_a_dashboard_that_is_not_there_is_infrastructure(submit):
    [port] = free_ports(1)
    lost = submit("--dashboard", f"http://127.0.0.1:{port}")
    assert lost.wait() == 33, lost.told
    assert "no Ray dashboard answers" in lost.told.strip().splitlines()[-1]


@pytest.mark.slow
def test_a_stopped_job_flushes_and_the_next_one_goes_on(submit, dashboard, start, reference, tmp_path):
    out = tmp_path / "out"
    accepted = submit("--no-follow")
    assert accepted.wait() == 0, accepted.told
    until(lambda: told(out, "done") and is_rendering(out), "the second video")
    stop = [*RAY, "job", "stop", told(out, "begin")[0]["job"], "--address", dashboard]
    asked = time.time()
    subprocess.run(stop, env={**os.environ, **TOKEN}, check=True, timeout=60, capture_output=True)
    [end] = until(lambda: told(out, "end"), "the last words")
    assert end["how"] == "stopped" and end["t"] > asked
    again = start()
    assert again.wait() == 0, again.told
    assert checksums(out) == reference
    assert ledger(out)[-1]["how"] == "done"


@pytest.mark.slow
def test_layouts_are_measured_by_a_job(dashboard, model, tmp_path):
    asked = ["scaling", "--model", model, "--steps", 4, *SETTINGS, "--method", "full", "--dashboard", dashboard]
    asked += ["--layouts", "1x1,1x2", "--rounds", 1, "--num", 1]
    places = ["--out", tmp_path / "out", "--json", tmp_path / "rows.json", "--report", tmp_path / "report"]
    followed = Driver("submit", *asked, *places, log=tmp_path / "log", environment=TOKEN)
    assert followed.wait(200) == 0, followed.told
    assert "round 1 of 1, 1x2" in followed.told
    assert [row["case"] for row in json.loads((tmp_path / "rows.json").read_text())] == ["1x1", "1x2"]
    assert (tmp_path / "report" / "curves.png").exists() and list((tmp_path / "out").iterdir()) == []


def _answers(url: str) -> bool:
    try:
        return urlopen(f"{url}/api/version", timeout=2).status == 200
    except (URLError, OSError) as error:
        return getattr(error, "code", None) in (401, 403)
