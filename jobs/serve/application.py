"""The door and the driver as deployments of Ray Serve, which starts each of them again wherever it ends.

`build` is what KubeRay's RayService is given, `application` what `resca serve` runs.
"""

import shlex
import sys

import ray
from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict
from ray import serve
from ray.serve import Application

from jobs.options.command_line import parse
from jobs.options.serve import ServeOptions
from jobs.options.words import words_of
from jobs.serve.api import make_api
from jobs.serve.batch_queue import BatchQueue
from jobs.serve.checked import checker_of
from jobs.serve.door import Door, Terms
from jobs.serve.supervisor import Supervisor
from jobs.serve.token import token_digest
from jobs.store.open import open_storage

NAME, DRIVER = "resca", "driver"
# Where no node comes and goes; what they do takes next to nothing of it.
ON_HEAD = {"num_cpus": 0, "resources": {"node:__internal_head__": 0.001}}
MOST_REQUESTS = 2000  # at the same time


class Arguments(BaseModel):
    """What a RayService says of the application."""

    model_config = ConfigDict(extra="forbid")

    options: str
    """Those of `resca serve`, as on its command line; host and port are Serve's own there."""


def build(arguments: Arguments) -> Application:
    """The application by the options of `resca serve`; the token is the environment's."""
    options = parse(["serve", *shlex.split(arguments.options)])
    return application(options, token_digest(options.token_file))


def application(options: ServeOptions, digest: str) -> Application:
    """With one door, so that requests which name themselves find each other, and one driver."""
    return DoorDeployment.bind(options, digest, DriverDeployment.bind(options))


@serve.deployment(name=DRIVER, num_replicas=1, ray_actor_options=ON_HEAD, graceful_shutdown_timeout_s=40)
class DriverDeployment:
    """Keeps a driver of the batch at work, in a process of its own: gangs end with it, whatever has ended it."""

    def __init__(self, options: ServeOptions) -> None:
        command = [sys.executable, "-m", "jobs", "serve", "driver", *words_of(options, without=("address",))]
        address = ray.get_runtime_context().gcs_address
        self._supervisor = Supervisor([*command, "--address", address])
        self._supervisor.start()

    def said(self, after: int) -> tuple[int, list[str]]:
        """What the driver prints; see `Supervisor`."""
        return self._supervisor.said(after)

    def check_health(self) -> None:
        """Serve asks again and again, and replaces what raises."""
        if not self._supervisor.is_at_work:
            raise RuntimeError("nobody starts the driver any more")

    def __del__(self) -> None:
        self._supervisor.close()


@serve.deployment(name="door", num_replicas=1, max_ongoing_requests=MOST_REQUESTS, ray_actor_options=ON_HEAD)
@serve.ingress()
class DoorDeployment:
    """Answers requests; the driver beside it takes what they add from the ledger."""

    def __init__(self, options: ServeOptions, digest: str, driver: object) -> None:
        self._door, self._digest = open_door(options), digest

    def __serve_build_asgi_app__(self) -> FastAPI:
        return make_api(self._door, self._digest)

    def check_health(self) -> None:
        """As the driver's."""
        if self._door.is_broken:
            raise RuntimeError("the ledger is not followed any more")


def open_door(options: ServeOptions) -> Door:
    """The door in front of the batch in `--out`. Raises BadInput."""
    storage, checker = open_storage(options.out), checker_of(options)
    terms = Terms(model=checker.model, fps=checker.fps, most_left=options.queue, period_s=storage.flush_period_s / 2)
    return Door(BatchQueue(storage), checker, terms)
