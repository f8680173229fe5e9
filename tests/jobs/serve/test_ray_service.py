"""The application that `ray_configs` has KubeRay start, given to a real Ray Serve as it is."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import yaml

from tests.jobs.serve.harness import TOKEN, is_ready
from tests.jobs.survival.harness import ROOT, SETTINGS, told, until
from tests.jobs.tiny_model import save_tiny_pipeline

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.filterwarnings("ignore:The Sora API")]
MANIFEST = ROOT / "ray_configs" / "kuberay-rayservice.yaml"


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    """Where the application answers; what differs from the file is the place, the model and the directory."""
    [service] = [each for each in yaml.safe_load_all(MANIFEST.read_text()) if each["kind"] == "RayService"]
    config: dict[str, Any] = yaml.safe_load(service["spec"]["serveConfigV2"])
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config["http_options"] = {"host": "127.0.0.1", "port": port}
    model = save_tiny_pipeline(tmp_path / "model")
    [application] = config["applications"]
    application["args"]["options"] = f"--out {tmp_path / 'out'} --model {model} --steps 20 {' '.join(SETTINGS)}"
    written = tmp_path / "serve.yaml"
    written.write_text(yaml.safe_dump(config))
    process = subprocess.Popen(
        [sys.executable, "-m", "ray.serve.scripts", "run", str(written)],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "RAY_ADDRESS": "local",
            "RESCA_TOKEN": TOKEN,
        },
        start_new_session=True,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        until(lambda: process.poll() is not None or is_ready(url), "the application to answer", patience_s=400)
        assert process.poll() is None
        yield url
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            process.wait(60)


def test_the_application_of_the_ray_service_renders_what_openais_client_asks_for(url, tmp_path):
    client = openai.OpenAI(api_key=TOKEN, base_url=f"{url}/v1", timeout=60)
    video = client.videos.create_and_poll(prompt="a cat walks", poll_interval_ms=200)
    assert video.status == "completed"
    client.videos.download_content(video.id).write_to_file(tmp_path / "cat.mp4")
    [made] = (tmp_path / "out" / "videos").glob("*.mp4")
    assert (tmp_path / "cat.mp4").read_bytes() == made.read_bytes()
    assert [line["id"] for line in told(tmp_path / "out", "done")] == [video.id]
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(api_key="somebody-elses", base_url=f"{url}/v1").videos.list()
