"""The options of `scaling`, here and as a job on a cluster."""

from dataclasses import dataclass, field
from typing import Annotated

import tyro

from jobs.options.shared import File, JobOptions, Text, VideoOptions


@dataclass(frozen=True, kw_only=True)
class ScalingOptions:
    """Render the same videos with several layouts and gangs, in turns, and compare what they take with predictions."""

    layouts: str = "1x1,2x1"
    """Ulysses x Ring, separated by commas, cfg2 or cfg2x2x1 with ranks for each pass; compared with the first."""
    gangs: Text = None
    """Also several gangs of the first layout at the same time: their numbers, separated by commas."""
    rounds: int = 2
    """How often each layout has its turn."""
    num: int = 4
    """Videos of a turn, after one that does not count."""
    method: str = "auto"
    """A method, or a file with a recipe."""
    prompts: File = None
    """A .txt, .csv or .jsonl file; by default the demo's."""
    model: str = "demo"
    """`demo`, `demo-wan`, `demo-dit`, a directory with a diffusers pipeline, or a hub id."""
    video: tyro.conf.OmitArgPrefixes[VideoOptions] = field(default_factory=VideoOptions)
    out: Annotated[str, tyro.conf.arg(metavar="PATH|URL")] = "out/scaling"
    """Directory for the videos, which are not kept, or a URL; every node has to see it."""
    nodes: Text = None
    """What a cluster that scales by itself may grow to, as in 4xCPU=96,GPU=8; gangs then wait for their nodes."""
    address: Text = None
    """Ray cluster to attach to; by default RAY_ADDRESS, or else a Ray of its own on this machine."""
    json: File = None
    """Write the table to this file, as a list of rows."""
    report: File = None
    """Also write a directory: rows (JSON, CSV), what links were measured to be, and curves of efficiency."""


@dataclass(frozen=True, kw_only=True)
class SubmitScalingOptions(ScalingOptions, JobOptions):
    """The same on a cluster from another machine, through Ray's job interface; the job is followed to its end."""
