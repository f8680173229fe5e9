"""`resca submit PROMPTS --out URL`: render on a cluster from another machine, through Ray's job interface."""

import logging
import os
import re
import secrets
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.token import keep_private
from jobs.commands.follow import follow
from jobs.console import make_console
from jobs.errors import DONE, INFRASTRUCTURE, TERMINATED, BadInput, InfrastructureError
from jobs.models.demos import DEMOS
from jobs.options.batch import RenderOptions, SubmitOptions
from jobs.options.shared import MethodOptions, VideoOptions
from jobs.request.checks import check_numbers
from jobs.request.prompts import Defaults, read_items
from jobs.request.recipes import SUFFIXES, read_recipe
from jobs.store.items import JOB
from jobs.store.open import directory_of, open_storage, with_lower_scheme

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

ROOT = Path(__file__).parents[2]
PACKAGES = ("caching", "parallel", "cluster", "jobs")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.png", "results")
DEFAULT = "http://127.0.0.1:8265"
TOKEN_HINT = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or write the cluster's token to ~/.ray/auth_token"


def run(options: SubmitOptions) -> int:
    """Returns the job's own exit code when it is followed. Raises BadInput and InfrastructureError."""
    check_numbers(options)
    read_items(options.prompts, Defaults(height=1, width=1, num_frames=1, steps=1))
    _check_reachable_later(options)
    console = make_console()
    client = _client(options.dashboard)
    submission = f"resca-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    with _package(options) as folder:
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        console.print(f"uploading {size / 2**20:.1f} MiB as {submission}")
        _submit(client, submission, folder, options)
    address = client.get_address()
    console.print(f"accepted; follow it: ray job logs -f {submission} --address {address}", soft_wrap=True)
    console.print(f"stop it: ray job stop {submission} --address {address}", soft_wrap=True)
    if not options.follow:
        return DONE
    info = follow(client, submission)
    return _exit_code(info.status.value, info.message or "", info.driver_exit_code)


def _check_reachable_later(options: SubmitOptions) -> None:
    """What the cluster will look for must be there, too, and what goes with the job must be here."""
    if options.json or options.address:
        raise BadInput("--json and --address are for render; the job attaches to the cluster that it is submitted to")
    for recipe in [path for path in _files(options).values() if path != options.prompts]:
        read_recipe(recipe)
    if os.path.exists(options.model) and options.model not in DEMOS and not Path(options.model).is_absolute():
        raise BadInput(f"--model {options.model} is a relative path; give one that every node sees, or a hub id")
    if directory_of(options.out) and not Path(with_lower_scheme(options.out).removeprefix("file://")).is_absolute():
        raise BadInput(f"--out {options.out} is a relative path; give one that every node sees, or a URL")


def _client(address: str | None) -> "JobSubmissionClient":
    from ray.job_submission import JobSubmissionClient

    keep_private()
    logging.getLogger("ray").setLevel(logging.ERROR)  # It warns of each large file in what is uploaded.
    address = address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT
    if "://" not in address:
        raise BadInput(f"--dashboard {address} should be a URL, such as http://{address}")
    with _jobs_errors(address):
        return JobSubmissionClient(address)


def _submit(client: "JobSubmissionClient", submission: str, folder: Path, options: SubmitOptions) -> None:
    with _jobs_errors(client.get_address()):
        client.submit_job(
            submission_id=submission,
            entrypoint=_entrypoint(options),
            runtime_env={"working_dir": str(folder), "env_vars": {JOB: submission}},
            entrypoint_num_cpus=0,
            metadata={"resca_out": str(open_storage(options.out))},
        )


@contextmanager
def _package(options: SubmitOptions) -> Iterator[Path]:
    """The working directory of the job: this package, the prompts, and what else the options name."""
    with tempfile.TemporaryDirectory(prefix="resca-") as place:
        folder = Path(place) / "resca"
        for package in PACKAGES:
            shutil.copytree(ROOT / package, folder / package, ignore=LEFT_OUT)
        for directory in (path for name, path in DEMOS.items() if name != options.model):
            shutil.rmtree(folder / directory.relative_to(ROOT), ignore_errors=True)
        for name, path in _files(options).items():
            shutil.copyfile(path, folder / name)
        yield folder


def _files(options: SubmitOptions) -> dict[str, Path]:
    """Local files that go with the job, by their names there."""
    files = {f"prompts{options.prompts.suffix}": options.prompts}
    if plan := options.cache.plan:
        files[f"plan{plan.suffix}"] = plan
    if options.method.endswith(SUFFIXES):
        recipe = Path(options.method)
        files[f"recipe{recipe.suffix}"] = recipe
    return files


def _entrypoint(options: SubmitOptions) -> str:
    """The command line of the job; every word is quoted, and prompts are in a file."""
    names = {path: name for name, path in _files(options).items()}
    words = ["python", "-m", "jobs", "render", names[options.prompts], "--address", "auto", "--yes"]
    own, passing = RenderOptions(prompts=options.prompts, out=options.out), {"prompts", "address", "yes", "json"}
    for given, default in ((options, own), (options.cache, MethodOptions()), (options.video, VideoOptions())):
        for name, value in vars(given).items():
            if name in passing or name in ("cache", "video") or name not in vars(default):
                continue
            if value != getattr(default, name) or name == "out":
                words += _flag(name, names.get(Path(value), value) if isinstance(value, str | Path) else value)
    return shlex.join(words)


def _flag(name: str, value: object) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, tuple):
        return [word for each in value for word in (flag, str(each))]
    return [flag] if value is True else [flag, str(value)]


def _exit_code(status: str, message: str, code: int | None) -> int:
    if status == "SUCCEEDED":
        return DONE
    if status == "STOPPED":
        return TERMINATED
    said = re.search(r"exit code (\d+)", message)
    return code or (int(said[1]) if said else INFRASTRUCTURE)


@contextmanager
def _jobs_errors(address: str) -> Iterator[None]:
    """What Ray's client raises, in one sentence."""
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        raise BadInput(f"the cluster at {address} refuses without a valid token: {TOKEN_HINT}") from error
    except OSError as error:
        raise InfrastructureError(f"no Ray dashboard answers at {address}; is it reachable from here?") from error
    except RuntimeError as error:
        text = str(error)
        if re.search(r"\b40[13]\b|[Uu]nauthorized|[Aa]uthentication|token", text):
            raise BadInput(f"the cluster at {address} refuses without a valid token: {TOKEN_HINT}") from error
        raise InfrastructureError(f"the cluster at {address} refuses the job: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
