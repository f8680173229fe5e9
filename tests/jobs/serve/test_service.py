"""The whole service on a real Ray Serve, asked by OpenAI's own client, while its parts are killed."""

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.jobs.serve.harness import DOOR, DRIVER, Service
from tests.jobs.survival.harness import Driver, checksums, is_rendering, ranks, told, until
from tests.jobs.tiny_model import save_tiny_pipeline

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200), pytest.mark.filterwarnings("ignore:The Sora API")]
STEPS = 100  # of a tiny model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def serve(model: Path, tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts the service, always on the same directory; none outlives the test."""
    services: list[Service] = []

    def serve(*options: object, steps: int = 20) -> Service:
        log = tmp_path / f"service-{len(services)}.log"
        services.append(Service(tmp_path / "out", model, *options, log=log, steps=steps))
        return services[-1]

    yield serve
    for service in services:
        if not service.has_ended:
            service.stop()


def test_openais_client_creates_polls_lists_downloads_and_deletes(serve, tmp_path):
    service = serve()
    client = service.client()
    video = client.videos.create_and_poll(prompt="a cat walks", seconds="1", poll_interval_ms=200)
    assert (video.status, video.seconds, video.progress) == ("completed", "1", 100), service.resca.told
    client.videos.download_content(video.id).write_to_file(tmp_path / "cat.mp4")
    [made] = (tmp_path / "out" / "videos").glob("*.mp4")
    assert (tmp_path / "cat.mp4").read_bytes() == made.read_bytes()
    extra: dict[str, Any] = {"seed": 7, "steps": 10}
    other = client.videos.create(prompt="grass", size="48x32", extra_body=extra)
    assert client.videos.poll(other.id, poll_interval_ms=200).status == "completed"
    assert [each.id for each in client.videos.list(limit=1)] == [other.id, video.id]  # page by page
    assert client.videos.delete(video.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.videos.retrieve(video.id)
    with pytest.raises(openai.BadRequestError, match="must be WIDTHxHEIGHT"):
        client.videos.create(prompt="a cat", size="big")  # pyright: ignore[reportArgumentType]
    with pytest.raises(openai.AuthenticationError):
        service.client(api_key="somebody-elses-token").videos.list()
    assert service.stop() == 143
    assert told(tmp_path / "out", "end")[-1]["how"] == "stopped"


def test_each_video_is_made_once_whatever_is_killed(serve, tmp_path):
    """20 by HTTP and 10 by `resca add`: driver, door, a rank, and then everything is killed in between."""
    out = tmp_path / "out"
    service = serve("--queue", 25, steps=STEPS)
    client = service.client(max_retries=20)
    ids = [create(client, number) for number in range(8)]
    until(lambda: is_rendering(out), "a video to be under way", patience_s=300)
    kill(ranks(service.resca.process.pid)[0].pid)
    ids += [create(client, number) for number in range(8, 12)]
    kill(service.part(DOOR).pid)
    ids += [create(client, number) for number in range(12, 16)]
    until(lambda: len(told(out, "done")) >= 3, "some videos", patience_s=300)
    kill(service.part(DRIVER).pid)
    ids += add(out, tmp_path, 5, "first")
    kill(service.resca.process.pid)
    service.resca.wait()
    ids += add(out, tmp_path, 5, "second")
    service = serve("--queue", 25, steps=STEPS)
    client = service.client(max_retries=20)
    ids += [create(client, number) for number in range(16, 20)]
    assert [create(client, number) for number in range(20)] == [each for each in ids if each.startswith("video_")]
    full = service.client(max_retries=0)
    with pytest.raises(openai.RateLimitError):
        for _ in range(26):
            ids.append(full.videos.create(prompt="one too many").id)
    until(lambda: len(told(out, "done")) >= len(ids), "all videos", patience_s=600)
    assert {client.videos.retrieve(each).status for each in ids} == {"completed"}
    assert service.stop() == 143
    assert checksums(out).keys() == set(ids)
    assert Counter(line["id"] for line in told(out, "done")) == Counter(ids)


def create(client: openai.OpenAI, number: int) -> str:
    """A request that may be made again, whatever became of it."""
    named = {"Idempotency-Key": f"request {number}"}
    return client.videos.create(prompt=f"a cat walks on grass number {number}", extra_headers=named, timeout=60).id


def add(out: Path, folder: Path, number: int, name: str) -> list[str]:
    """By the command line, with ids of one's own."""
    prompts = folder / f"{name}.csv"
    ids = [f"{name}-{index}" for index in range(number)]
    prompts.write_text("prompt,id\n" + "".join(f"grass,{each}\n" for each in ids))
    adding = Driver("add", out, prompts, log=folder / f"{name}.log")
    assert adding.wait() == 0, adding.told
    return ids


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
