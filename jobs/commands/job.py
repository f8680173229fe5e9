"""A command as a job on a cluster, through Ray's job interface: what goes along, how it is followed, and its end."""

import logging
import os
import re
import secrets
import shlex
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.token import keep_private
from jobs.commands.follow import Split, follow, print_on
from jobs.console import make_console
from jobs.errors import DONE, INFRASTRUCTURE, TERMINATED, BadInput, InfrastructureError
from jobs.models.demos import DEMOS, is_path
from jobs.store.items import JOB
from jobs.store.open import directory_of, open_storage, with_lower_scheme

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

ROOT = Path(__file__).parents[2]
PACKAGES = ("caching", "parallel", "cluster", "jobs")
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.png", "results")
DEFAULT = "http://127.0.0.1:8265"
TOKEN_HINT = "set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN, or write the cluster's token to ~/.ray/auth_token"


@dataclass(frozen=True, kw_only=True)
class Job:
    """A `resca` that runs on a cluster: its words, and the local files that go along, by their names there."""

    words: list[str]
    files: Mapping[str, Path]
    model: str
    out: str

    @property
    def entrypoint(self) -> str:
        """Every word is quoted, and prompts are in a file."""
        return shlex.join(["python", "-m", "jobs", *self.words])


def send(job: Job, dashboard: str | None, *, follows: bool, tells_programs: bool = False) -> int:
    """Returns the job's own exit code when it is followed. Raises BadInput and InfrastructureError.

    Of a job that tells programs of its progress, standard output has these lines and nothing else.
    """
    console = make_console(stderr=tells_programs)
    client = _client(dashboard)
    submission = f"resca-{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
    with packaged(job) as folder:
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        console.print(f"uploading {size / 2**20:.1f} MiB as {submission}")
        _submit(client, submission, folder, job)
    address = client.get_address()
    console.print(f"accepted; follow it: ray job logs -f {submission} --address {address}", soft_wrap=True)
    console.print(f"stop it: ray job stop {submission} --address {address}", soft_wrap=True)
    if not follows:
        return DONE
    info = follow(client, submission, Split() if tells_programs else print_on)
    return _exit_code(info.status.value, info.message or "", info.driver_exit_code)


def check_model(model: str) -> None:
    """Raises BadInput for a directory that only this machine would find."""
    if is_path(model) and not Path(model).is_absolute():
        raise BadInput(f"--model {model} is a relative path; give one that every node sees, or a hub id")


def check_place(option: str, place: str) -> None:
    """Raises BadInput for a place to write to that would be relative to wherever the job runs."""
    if directory_of(place) and not Path(with_lower_scheme(place).removeprefix("file://")).is_absolute():
        raise BadInput(f"{option} {place} is a relative path; give one that every node sees, or a URL")


def flags_of(given: object, default: object, files: Mapping[str, Path], *, leave_out: Collection[str]) -> list[str]:
    """Options that differ from their defaults, files by their names in the job; where output goes, in any case."""
    names, words = {path: name for name, path in files.items()}, []
    for name, usual in vars(default).items():
        value = getattr(given, name)
        if is_dataclass(usual):
            words += flags_of(value, usual, files, leave_out=leave_out)
        elif name not in leave_out and (value != usual or name == "out"):
            words += _flag(name, names.get(Path(value), value) if isinstance(value, str | Path) else value)
    return words


def _flag(name: str, value: object) -> list[str]:
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, tuple):
        return [word for each in value for word in (flag, str(each))]
    return [flag] if value is True else [flag, str(value)]


def _client(address: str | None) -> "JobSubmissionClient":
    from ray.job_submission import JobSubmissionClient

    keep_private()
    logging.getLogger("ray").setLevel(logging.ERROR)  # It warns of each large file in what is uploaded.
    address = address or os.environ.get("RAY_API_SERVER_ADDRESS") or DEFAULT
    if "://" not in address:
        raise BadInput(f"--dashboard {address} should be a URL, such as http://{address}")
    with _jobs_errors(address):
        return JobSubmissionClient(address)


def _submit(client: "JobSubmissionClient", submission: str, folder: Path, job: Job) -> None:
    environment: dict[str, Any] = {"working_dir": str(folder), "env_vars": {JOB: submission}}
    with _jobs_errors(client.get_address()):
        client.submit_job(
            submission_id=submission,
            entrypoint=job.entrypoint,
            runtime_env=environment,
            entrypoint_num_cpus=0,
            metadata={"resca_out": str(open_storage(job.out))},
        )


@contextmanager
def packaged(job: Job) -> Iterator[Path]:
    """The working directory of the job: this package, and the files that go along."""
    with tempfile.TemporaryDirectory(prefix="resca-") as place:
        folder = Path(place) / "resca"
        for package in PACKAGES:
            shutil.copytree(ROOT / package, folder / package, ignore=LEFT_OUT)
        for directory in (path for name, path in DEMOS.items() if name != job.model):
            shutil.rmtree(folder / directory.relative_to(ROOT), ignore_errors=True)
        for name, path in job.files.items():
            shutil.copyfile(path, folder / name)
        yield folder


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
