"""The options of the commands around a batch: before it, while it runs and after it. They cost nothing to import."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from jobs.options.shared import Count, File, JobOptions, MethodOptions, PromptOptions, Text, VideoOptions, Weights

Auto = Annotated[int | Literal["auto"], tyro.conf.arg(metavar="INT|auto")]
Price = Annotated[float | None, tyro.conf.arg(metavar="PER_GPU_HOUR")]
OnEnd = Annotated[str | None, tyro.conf.arg(metavar="COMMAND|URL")]
Assignments = Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME=VALUE")]
Minutes = Annotated[float | None, tyro.conf.arg(metavar="MINUTES")]
Place = tyro.conf.Positional[str]


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """How the videos of a batch are rendered, and where they go; with which prompts its commands say."""

    out: Annotated[str, tyro.conf.arg(metavar="PATH|URL")]
    """Directory for the videos, or a URL such as s3://bucket/videos; what is finished there is not rendered again."""
    model: str = "demo"
    """`demo`, `demo-wan`, `demo-dit`, a directory with a diffusers pipeline, or a hub id (owner/name[@revision])."""
    trust_remote_code: tyro.conf.FlagCreatePairsOff[bool] = False
    """Run the Python files that the model's directory brings along, if it needs them; they can do anything you can."""
    method: str = "auto"
    """A method (auto, resca, taylorseer, teacache, fora, steps ...; full for none) or a file with a recipe."""
    cache: tyro.conf.OmitArgPrefixes[MethodOptions] = field(default_factory=MethodOptions)
    video: tyro.conf.OmitArgPrefixes[VideoOptions] = field(default_factory=VideoOptions)
    cfg: Literal[1, 2, "auto"] = 1
    """Parts of a video's ranks, each for one of the two passes of guidance; auto takes 2 where there are two."""
    ulysses: Auto = 1
    """Ranks that split the attention heads, all on one node; auto takes as many as the nodes and the model allow."""
    ring: Auto = 1
    """Groups of such ranks, on any nodes, that pass keys and values around; auto as well."""
    sp_engine: Literal["xfuser", "deepspeed"] = "xfuser"
    """Who exchanges tokens and heads: xfuser (Ulysses x Ring) or DeepSpeed (Ulysses)."""
    attention: Annotated[str, tyro.conf.arg(metavar="NAME")] = "auto"
    """Attention kernel; auto takes the fastest exact one: flash3, cudnn, flash. Low precision by name: sage, sage:5."""
    weights: Weights = "plain"
    """How transformer and text encoders keep their weights: in the model's number format, or in 8 bits."""
    shard_weights: tyro.conf.FlagCreatePairsOff[bool] = False
    """Split the weights of transformer and text encoders over a video's ranks; each block is gathered to run."""
    offload: tyro.conf.FlagCreatePairsOff[bool] = False
    """Keep text encoders and VAE in pinned host memory while they are not used."""
    gangs: Auto = 1
    """Videos rendered at the same time, each by cfg x ulysses x ring ranks; auto fills the cluster as it grows."""
    nodes: Text = None
    """What a cluster that scales by itself may grow to, as in 4xCPU=96,GPU=8; gangs then wait for their nodes."""
    cpus_per_rank: Auto = "auto"
    """Cores of each rank, which are also its threads; auto shares all among the gangs."""
    start_timeout: int = 600
    """Seconds that a gang may wait for its place, and again take to load the model; downloads are not counted."""
    deadline: int = 600
    """Seconds without progress after which a gang counts as hung; the video is then started again."""
    heartbeat: int = 60
    """Seconds without an answer after which a rank counts as lost."""
    tries: int = 2
    """How often a video may fail by itself before it is given up, the last time on a fresh gang."""
    lost_gangs: int = 3
    """How often a video may lose the machines under it before it is given up."""
    checkpoint_every: Count = None
    """Keep the state of a running video after so many dense steps, so that it need not start over."""
    env: Assignments = ()
    """Sets a variable in every rank, such as NCCL_IB_HCA=mlx5; may be given several times. Not for secrets."""
    address: Text = None
    """Ray cluster to attach to; by default RAY_ADDRESS, or else a Ray of its own on this machine."""
    keep_warm: Minutes = None
    """Keep gangs for so long after the batch for others of the same model, and take such gangs; of a Ray that stays."""
    priority: float = 1.0
    """What part of gangs that other batches with --keep-warm use, too, against theirs: with 2, twice that of 1."""
    save_latents: tyro.conf.FlagCreatePairsOff[bool] = False
    """Keep the final latents as .safetensors beside each file."""
    price: Price = None
    """What an hour of one GPU costs, of one rank where there are none; the directory remembers it."""


@dataclass(frozen=True, kw_only=True)
class RenderOptions(BatchOptions):
    """Render every prompt of a file to an MP4, or to a PNG by a model of images, on Ray."""

    prompts: tyro.conf.Positional[File] = None
    """A .txt (one prompt a line), .csv, .tsv, .json or .jsonl file (prompt; optional id, seed, ...), or OpenAI's."""
    lines: tyro.conf.OmitArgPrefixes[PromptOptions] = field(default_factory=PromptOptions)
    images_per_prompt: Count = None
    """Images of each prompt, whose seeds follow each other; of models that make images."""
    limit: Count = None
    """Render only the first prompts of the file; the batch remembers those others that it was about before."""
    sample: Annotated[str | None, tyro.conf.arg(metavar="PERCENT")] = None
    """Render only a random part of the prompts, such as 1%, the same for the same --sample-seed."""
    sample_seed: int = 0
    """Which random part that is."""
    stay: tyro.conf.FlagCreatePairsOff[bool] = False
    """Keep the gangs when nothing is left, and wait for what is added (resca add), until resca cancel."""
    retry: tyro.conf.FlagCreatePairsOff[bool] = False
    """Take up again what was given up before, too."""
    replace: tyro.conf.FlagCreatePairsOff[bool] = False
    """Render anew what lies there with other settings, instead of refusing; a new video takes the place of the old."""
    verify: tyro.conf.FlagCreatePairsOff[bool] = False
    """Compare the checksums of all finished videos, also of those that look untouched."""
    yes: tyro.conf.FlagCreatePairsOff[bool] = False
    """Start long batches without asking."""
    on_end: OnEnd = None
    """A command to run at the end, however it comes, or a URL to post to; both are told of it in JSON."""
    progress: Literal["text", "jsonl"] = "text"
    """What standard output says: text for people, or a JSON object a line, and the text on standard error."""
    json: File = None
    """Write the final table to this file, as a list of rows."""


@dataclass(frozen=True, kw_only=True)
class PlanOptions(RenderOptions):
    """Say what `render` with the same options would do, on what, and for how long; nothing is started or written."""


@dataclass(frozen=True, kw_only=True)
class SubmitOptions(RenderOptions, JobOptions):
    """Render on a cluster from another machine, through Ray's job interface; the job is followed to its end."""


@dataclass(frozen=True, kw_only=True)
class StatusOptions:
    """Say how a batch stands, from what lies in its directory; it may be running, anywhere."""

    out: Place
    """The batch's output directory: a path or a URL such as s3://bucket/videos."""
    verify: tyro.conf.FlagCreatePairsOff[bool] = False
    """Also read every video and compare its checksum."""
    price: Price = None
    """What an hour of one GPU costs; by default what was said when the batch was started."""
    watch: Annotated[float | None, tyro.conf.arg(metavar="[SECONDS]")] = None
    """Look again every so many seconds (5), until the batch has ended or Ctrl-C, which leaves it alone."""
    json: File = None
    """Write what is known of each video to this file, as a list of rows."""


@dataclass(frozen=True, kw_only=True)
class LogsOptions:
    """Show what ranks and driver have said of one video, or without an id the last of what the driver has said."""

    out: Place
    """The batch's output directory: a path or a URL."""
    id: Annotated[tyro.conf.Positional[str | None], tyro.conf.arg(metavar="ID")] = None
    """The id of a video or image."""
    tail: int = 40
    """How many of the driver's lines to show."""


@dataclass(frozen=True, kw_only=True)
class RetryOptions:
    """Render what a batch has left: videos that failed, were given up, or were never begun."""

    out: Place
    """The batch's output directory: a path or a URL."""
    gangs: Annotated[int | Literal["auto"] | None, tyro.conf.arg(metavar="INT|auto")] = None
    """Videos rendered at the same time; by default as many as before."""
    env: Assignments = ()
    """Sets a variable in every rank, such as NCCL_IB_HCA=mlx5; may be given several times. Not for secrets."""
    address: Text = None
    """Ray cluster to attach to; by default RAY_ADDRESS, or else a Ray of its own on this machine."""
    price: Price = None
    """What an hour of one GPU costs; by default what was said before."""
    on_end: OnEnd = None
    """A command to run at the end, however it comes, or a URL to post to; both are told of it in JSON."""
    yes: tyro.conf.FlagCreatePairsOff[bool] = False
    """Start long batches without asking."""


@dataclass(frozen=True, kw_only=True)
class AddOptions:
    """Add prompts to a batch that runs, or has ended; what it has already stays as it is."""

    out: Place
    """The batch's output directory: a path or a URL."""
    prompts: tyro.conf.Positional[File] = None
    """A file of prompts, as render takes it; a line without an id gets the next free number."""
    lines: tyro.conf.OmitArgPrefixes[PromptOptions] = field(default_factory=PromptOptions)
    images_per_prompt: Count = None
    """Images of each prompt, whose seeds follow each other; of models that make images."""


@dataclass(frozen=True, kw_only=True)
class WithdrawOptions:
    """Have what was added to a batch not be rendered any more; the next driver removes what is finished of it."""

    out: Place
    """The batch's output directory: a path or a URL."""
    ids: tyro.conf.Positional[tuple[str, ...]]
    """The ids of what was added."""


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
class ImagesOptions:
    """Lay finished images out for a judge."""

    out: Place
    """The batch's output directory: a path or a URL."""
    to: Path
    """The directory to make; images are linked where they can be, and copied elsewhere."""


@dataclass(frozen=True, kw_only=True)
class GenEvalOptions(ImagesOptions):
    """Lay finished images out as GenEval reads them."""

    metadata: Path
    """GenEval's evaluation_metadata.jsonl, which tells of each prompt what is to be seen."""


@dataclass(frozen=True, kw_only=True)
class DrawBenchOptions(ImagesOptions):
    """Lay finished images out as ImageReward reads them, with its list of prompts."""


@dataclass(frozen=True, kw_only=True)
class FidOptions(ImagesOptions):
    """Lay finished images out as a folder of numbered ones, as FID is computed of."""


@dataclass(frozen=True, kw_only=True)
class DoctorOptions:
    """Look over this machine and the cluster; each finding comes with its remedy."""

    out: Text = None
    """Also try to write to this output directory: a path or a URL."""
    model: str = "demo"
    """The model whose files are looked for."""
    variant: Text = None
    """Which of its weights, if it has several."""
    attention: Annotated[str, tyro.conf.arg(metavar="NAME")] = "auto"
    """The attention kernel that is to be used."""
    weights: Weights = "plain"
    """How transformer and text encoders are to keep their weights."""
    address: Text = None
    """Ray cluster to look at; by default RAY_ADDRESS, or else only this machine."""
    json: File = None
    """Write the findings to this file, as a list of rows."""
