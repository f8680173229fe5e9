"""The application on a running Ray: started, watched, and taken away again."""

import http.client
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from ray import serve
from ray.exceptions import RayActorError, RayError
from ray.serve.config import ControllerOptions, HTTPOptions, ProxyLocation
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException
from ray.serve.schema import LoggingConfig
from rich.console import Console

from jobs.errors import InfrastructureError
from jobs.options.serve import ServeOptions
from jobs.serve.application import DRIVER, NAME, application

QUIET = LoggingConfig(enable_access_log=False, log_level="WARNING")
# On a machine that its ranks keep busy all that Serve's own processes do takes its time.
PATIENT = {"RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60", "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S": "60"}
ANSWER_S = 120.0
LOOK_S = 2.0


@contextmanager
def served(options: ServeOptions, digest: str) -> Iterator[None]:
    """The application answers in the block; what of its name ran on that Ray before is replaced.

    Raises InfrastructureError if it does not start.
    """
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    try:
        _start(options, digest)
        _wait_for_answer(options)
        yield
    finally:
        _take_away()


def _start(options: ServeOptions, digest: str) -> None:
    try:
        try:
            _start_serve(options)
        except (RayError, TimeoutError):  # Its proxy was slow, and is started again by the controller, which is there.
            _start_serve(options)
        serve.run(application(options, digest), name=NAME, logging_config=QUIET)
    except (RayError, RayServeException, RuntimeError, TimeoutError) as error:
        raise InfrastructureError(f"the service does not start: {_first_line(error)}") from error


def _start_serve(options: ServeOptions) -> None:
    serve.start(
        proxy_location=ProxyLocation.HeadOnly,
        http_options=HTTPOptions(host=options.host, port=options.port),
        logging_config=QUIET,
        controller_options=ControllerOptions(runtime_env={"env_vars": PATIENT}),
    )


def follow(console: Console) -> NoReturn:
    """Prints what the driver says; a signal raises. Raises InfrastructureError when the service is taken away."""
    num_read = 0
    while True:
        time.sleep(LOOK_S)
        try:
            if NAME not in serve.status().applications:
                raise InfrastructureError("the service was deleted from its Ray cluster; run it again")
            num_read, lines = _said(num_read)
        except (RayError, RayServeException) as error:
            raise InfrastructureError(f"Ray does not answer any more: {_first_line(error)}") from error
        for line in lines:
            console.print(line, soft_wrap=True)


def _said(after: int) -> tuple[int, list[str]]:
    """How many lines the driver has printed, and those behind `after`; nothing new while it is started again."""
    driver = serve.get_deployment_handle(DRIVER, app_name=NAME)
    try:
        return driver.said.remote(after).result(timeout_s=LOOK_S)
    except (TimeoutError, RayActorError, DeploymentUnavailableError):
        return after, []


def _wait_for_answer(options: ServeOptions) -> None:
    """Another Serve that ran before keeps its own place."""
    ends = time.monotonic() + ANSWER_S
    while not _answers(options):
        if time.monotonic() > ends:
            place = f"{options.host}:{options.port}"
            raise InfrastructureError(
                f"nobody answers at {place}; if Serve runs on this cluster already, give its place"
            )
        time.sleep(0.2)


def _answers(options: ServeOptions) -> bool:
    connection = http.client.HTTPConnection(options.host, options.port, timeout=5)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == http.client.OK
    except OSError:
        return False
    finally:
        connection.close()


def _take_away() -> None:
    try:
        serve.delete(NAME)
    except (RayError, RayServeException, RuntimeError, TimeoutError):  # With its Ray it is gone, too.
        logging.getLogger(__name__).info("the application was gone already")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
