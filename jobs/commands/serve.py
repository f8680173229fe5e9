"""`resca serve --model MODEL --out DIR`: OpenAI's video API over HTTP, in front of a batch that stays."""

import ipaddress
import socket
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import NoReturn

from rich.console import Console

from cluster.environment import ray_address
from jobs.console import make_console
from jobs.driver.batch_plan import make_plan
from jobs.driver.drive import place_of
from jobs.driver.ray import running_ray
from jobs.errors import BadInput
from jobs.models.demos import is_path
from jobs.options.serve import ServeOptions
from jobs.request.checks import check_count
from jobs.request.recipes import SUFFIXES
from jobs.serve.rendering import driver_options
from jobs.store.medium import VIDEO
from jobs.store.open import open_storage
from jobs.store.rehearsal import check_encoder, check_folders

NEEDED = ("fastapi", "uvicorn", "python_multipart")
MOST_WAITING = 1_000_000


def run(options: ServeOptions) -> NoReturn:
    """Serve until it is stopped: Ctrl-C and SIGTERM end door, driver and gangs, and what was accepted stays.

    Raises:
        BadInput: before anything is started; what is wrong with the options, the token, the model or the port.
        InfrastructureError: no Ray cluster can be reached.
    """
    options = _checked(options)
    console = make_console()
    from jobs.serve.checked import checker_of  # what these import is installed by now
    from jobs.serve.token import token_digest

    digest = token_digest(options.token_file)
    with driver_options(options) as asked:
        plan = make_plan(asked)
    checker_of(options).check_default()
    check_encoder(VIDEO)
    with running_ray(options.address):
        place_of(plan)
        _serve(options, digest, console)


def _serve(options: ServeOptions, digest: str, console: Console) -> NoReturn:
    from jobs.serve.service import follow, served

    with served(options, digest):
        console.print(f"{options.model} at http://{_place(options)}/v1/videos; videos: {options.out}", soft_wrap=True)
        if not _is_loopback(options.host):
            console.print("whoever reaches this address can read the token on its way: put TLS in front of it")
        follow(console)


def _checked(options: ServeOptions) -> ServeOptions:
    """With paths that mean the same in another directory. Raises BadInput."""
    if missing := [name for name in NEEDED if not find_spec(name)]:
        raise BadInput(f"resca serve needs packages ({', '.join(missing)}): pip install -e '.[serve]'")
    check_count("port", options.port, 65535)
    check_count("queue", options.queue, MOST_WAITING)
    storage = open_storage(options.out)
    check_folders(storage)
    if ray_address(options.address) is None:  # Else a Serve that runs there may listen on it.
        _check_free(options.host, options.port)
    return replace(
        options,
        out=str(storage),
        model=_absolute(options.model) if is_path(options.model) else options.model,
        method=_absolute(options.method) if options.method.endswith(SUFFIXES) else options.method,
        cache=replace(options.cache, plan=options.cache.plan and options.cache.plan.absolute()),
        token_file=options.token_file and options.token_file.absolute(),
    )


def _absolute(path: str) -> str:
    return str(Path(path).absolute())


def _check_free(host: str, port: int) -> None:
    """Raises BadInput for a place where nobody can listen, or somebody does."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        raise BadInput(f"cannot listen on {host}:{port}: {error.strerror}; give another --host or --port") from error


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # A name.
        return False


def _place(options: ServeOptions) -> str:
    return f"[{options.host}]:{options.port}" if ":" in options.host else f"{options.host}:{options.port}"
