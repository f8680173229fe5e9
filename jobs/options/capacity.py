"""The options of `resca plan --gpus`, as a plain dataclass that costs nothing to import."""

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from jobs.options.shared import Count, File, Number, Text

# NVLink or PCIe within a node; InfiniBand of 400 Gbit/s a GPU or Ethernet of 100 Gbit/s a node between nodes.
LinkName = Literal["nvlink", "pcie", "ib400", "tcp100"]


@dataclass(frozen=True, kw_only=True)
class CapacityOptions:
    """Predict what so many GPUs would render, in which gangs and layouts, without any hardware."""

    gpus: Annotated[str, tyro.conf.arg(metavar="INT,INT,...")]
    """Numbers of GPUs, separated by commas."""
    gpu: Literal["h100", "h200", "b200", "a100", "l20", "h20", "cpu"] = "h100"
    """What kind; of cpu a rank has one core."""
    link: Annotated[LinkName | None, tyro.conf.arg(metavar="nvlink|pcie|ib400|tcp100")] = None
    """How those of a node are linked; by default nvlink where the kind has it, else pcie."""
    network: Literal["ib400", "tcp100"] = "ib400"
    """How nodes are linked."""
    gpus_per_node: int = 8
    """GPUs of a node; the ranks of a Ulysses group share one."""
    model: str = "hunyuanvideo"
    """A full-size model (hunyuanvideo, hunyuanvideo-1.5, wan, wan2.2, wan2.2-ti2v); with --calibrate also `demo` or a
    directory with a diffusers pipeline."""
    method: str = "full,resca,auto"
    """Methods, separated by commas."""
    height: Count = None
    """Height in pixels; by default the size at which the model's papers measure."""
    width: Count = None
    """Width in pixels."""
    num_frames: Count = None
    """Frames."""
    steps: int = 50
    """Denoising steps of full sampling."""
    price: Number = None
    """What an hour of one GPU costs, to add what a video costs."""
    videos: Count = None
    """Also simulate a batch of so many videos, on the best split for throughput."""
    loss_hours: Number = None
    """In it a node is lost once in so many hours; by default none is."""
    calibrate: Text = None
    """The output directory of a batch whose sidecars say how fast videos were; else rates are published or assumed."""
    report: File = None
    """Also write a directory: a page with curves, the rows (JSON) and what they rest on."""
    json: File = None
    """Write the table to this file, as a list of rows."""
