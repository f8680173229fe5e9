"""The options of the commands around a batch: before it, while it runs and after it. They cost nothing to import."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from jobs.options import File, RenderOptions, Text

Place = tyro.conf.Positional[str]


@dataclass(frozen=True, kw_only=True)
class PlanOptions(RenderOptions):
    """Say what `render` with the same options would do, on what, and for how long; nothing is started or written."""


@dataclass(frozen=True, kw_only=True)
class SubmitOptions(RenderOptions):
    """Render on a cluster from another machine, through Ray's job interface; the job is followed to its end."""

    dashboard: Text = None
    """The job interface, http://HOST:8265; by default RAY_API_SERVER_ADDRESS."""
    follow: bool = True
    """Show what the job says and end with its exit code; without it, return as soon as it is accepted."""


@dataclass(frozen=True, kw_only=True)
class StatusOptions:
    """Say how a batch stands, from what lies in its directory; it may be running, anywhere."""

    out: Place
    """The batch's output directory: a path or a URL such as s3://bucket/videos."""
    verify: tyro.conf.FlagCreatePairsOff[bool] = False
    """Also read every video and compare its checksum."""
    json: File = None
    """Write what is known of each video to this file, as a list of rows."""


@dataclass(frozen=True, kw_only=True)
class RetryOptions:
    """Render what a batch has left: videos that failed, were given up, or were never begun."""

    out: Place
    """The batch's output directory: a path or a URL."""
    gangs: Annotated[str | None, tyro.conf.arg(metavar="INT|auto")] = None
    """Videos rendered at the same time; by default as many as before."""
    address: Text = None
    """Ray cluster to attach to; by default RAY_ADDRESS, or else a Ray of its own on this machine."""
    yes: tyro.conf.FlagCreatePairsOff[bool] = False
    """Start long batches without asking."""


@dataclass(frozen=True, kw_only=True)
class CancelOptions:
    """Ask the driver of a running batch to stop; what is finished stays, and `render` or `retry` go on later."""

    out: Place
    """The batch's output directory: a path or a URL."""


@dataclass(frozen=True, kw_only=True)
class VBenchOptions:
    """Lay finished videos out under the names that VBench expects, with its list of prompts."""

    out: Place
    """The batch's output directory: a path or a URL."""
    to: Path
    """The directory to make; videos are linked where they can be, and copied elsewhere."""


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Look over this machine and the cluster; each finding comes with its remedy."""

    out: Text = None
    """Also try to write to this output directory: a path or a URL."""
    model: str = "demo"
    """The model whose files are looked for."""
    address: Text = None
    """Ray cluster to look at; by default RAY_ADDRESS, or else only this machine."""
    json: File = None
    """Write the findings to this file, as a list of rows."""
