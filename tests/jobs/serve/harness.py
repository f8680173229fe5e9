"""A service as users run it, in a process of its own, and its parts below that."""

import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil
from openai import OpenAI

from tests.jobs.survival.harness import SETTINGS, Driver, until

TOKEN = "a-token-of-enough-letters"
DOOR, DRIVER = "ray::ServeReplica:resca:door", "serve driver"


class Service:
    """`resca serve` with a tiny model, on a Ray of its own, that has begun to answer."""

    def __init__(self, out: Path, model: Path, *options: object, log: Path, steps: int = 20) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        words = ["--out", out, "--model", model, "--steps", steps, *SETTINGS, "--port", self.port, *options]
        self.resca = Driver("serve", *words, log=log, environment={"RESCA_TOKEN": TOKEN})
        try:
            until(lambda: self.has_ended or self.is_ready(), "the service to answer", patience_s=600)
            assert not self.has_ended, self.resca.told
        except BaseException:  # Of one that nobody has got hold of.
            self.resca.kill()
            raise

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def has_ended(self) -> bool:
        return self.resca.process.poll() is not None

    def client(self, **options: Any) -> OpenAI:
        """OpenAI's own, unmodified."""
        return OpenAI(**{"api_key": TOKEN, "base_url": f"{self.url}/v1", "timeout": 60, **options})

    def is_ready(self) -> bool:
        return is_ready(self.url)

    def part(self, name: str) -> psutil.Process:
        """The process of the door or of the driver."""
        return until(lambda: self._find(name), f"{name} to run")

    def _find(self, name: str) -> psutil.Process | None:
        for process in psutil.Process(self.resca.process.pid).children(recursive=True):
            try:
                if name in " ".join(process.cmdline()):
                    return process
            except psutil.Error:
                continue
        return None

    def stop(self) -> int:
        self.resca.process.terminate()
        return self.resca.wait()


def is_ready(url: str) -> bool:
    """Whether a service there answers, and can take requests."""
    try:
        return urllib.request.urlopen(f"{url}/readyz", timeout=5).status == 200
    except (urllib.error.URLError, OSError):
        return False
