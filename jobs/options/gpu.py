"""The options of `resca benchmark gpu`."""

from dataclasses import dataclass
from typing import Literal

from jobs.options.shared import File, Text


@dataclass(frozen=True, kw_only=True)
class GpuOptions:
    """Time dense and sparse steps of the full-size model with random weights, on one GPU, without Ray or downloads."""

    methods: str = "full,resca,auto,taylorseer,taylorseer:output,teacache"
    """Methods (names or recipe files), separated by commas; NAME:FEATURE caches another feature than the method's."""
    sizes: Text = None
    """HEIGHTxWIDTHxFRAMES, by default 480x640x65,720x1280x129; others than the first for full, resca and auto only."""
    steps: int = 50
    """Denoising steps of the loop that times are given for; only the first of them are run."""
    repeats: int = 3
    """Steps of each kind, dense and sparse, to time; fewer where they are long."""
    compile: Literal["off", "on", "both"] = "both"
    """Compile the blocks; both measures full and resca compiled as well."""
    attention: str = "flash,cudnn,efficient"
    """Attention kernels, as for render, to time full with, beside the one that auto takes; or none."""
    peers: str = "diffusers,diffusers-taylorseer,cache-dit-dbcache-taylorseer"
    """Rivals to time on a pipeline of diffusers; the first is that pipeline as it stands; or none."""
    minutes: float = 8.0
    """What no longer fits in this time is listed as not run."""
    model: Literal["hunyuanvideo", "small"] = "hunyuanvideo"
    """HunyuanVideo's 13 B transformer, or a few narrow layers, to try the command without a GPU."""
    report: File = None
    """Also write a directory: report.md, rows.json and about.json."""
    json: File = None
    """Write the table to this file, as a list of rows."""
