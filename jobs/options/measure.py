"""The options of each command, as plain dataclasses that cost nothing to import."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from jobs.errors import BadInput
from jobs.options.shared import Count, File, MethodOptions, Number, Text, VideoOptions, Weights


@dataclass(frozen=True, kw_only=True)
class ComparedOptions:
    """Several methods, with options that each takes where it has them."""

    methods: str = "full,resca"
    """Methods to compare (names or recipe files), separated by commas; all stands for every one of ours."""
    cache: tyro.conf.OmitArgPrefixes[MethodOptions] = field(default_factory=MethodOptions)
    json: File = None
    """Write the table to this file, as a list of rows."""

    @property
    def wants_all(self) -> bool:
        """Whether every method is meant."""
        return "all" in self._given()

    def method_names(self, *, cross_attention: bool = False, attends_to_all: bool = True) -> list[str]:
        """The methods to compare, in the order given. Raises BadInput if there are none.

        All are those that work on the model; some need its cross-attention, others tokens that attend to all others.
        """
        from caching.recipe.recipe import RECIPES

        every = [
            name
            for name, method in RECIPES.items()
            if cross_attention >= method.needs_cross_attention and attends_to_all >= method.attends_anew
        ]
        names = [each for name in self._given() for each in (every if name == "all" else [name])]
        if not names:
            raise BadInput("--methods names no method; give some, separated by commas")
        return list(dict.fromkeys(names))

    def _given(self) -> list[str]:
        return [name.strip() for name in self.methods.split(",") if name.strip()]

    def cache_for(self, method: str) -> MethodOptions:
        """The given options that `method` has. Raises BadInput for one that none of the methods has."""
        known = {option for name in self.method_names() for option in _options_of(name)}
        if unknown := [name for name in self.cache.given() if name not in known]:
            raise BadInput(f"none of the methods {self.methods} has an option --{unknown[0]}")
        own = _options_of(method)
        given = {name: value for name, value in self.cache.given().items() if name in own}
        return MethodOptions(**given)


def _options_of(method: str) -> tuple[str, ...]:
    from caching.recipe.recipe import RECIPES

    own = tuple(RECIPES[method].options) if method in RECIPES else ()
    return (*own, *(("plan",) if method == "auto" else ()))


@dataclass(frozen=True, kw_only=True)
class BenchmarkOptions(ComparedOptions):
    """Compare methods on the same prompts and seeds, in one process."""

    num: int = 4
    """Prompts to render with each method."""
    peers: tyro.conf.FlagCreatePairsOff[bool] = False
    """Also run what a user would otherwise pick: the caches of diffusers and cache-dit, and few-step solvers."""
    only_peers: Text = None
    """Those alone with these names (unipc-9, diffusers-magcache ...), separated by commas."""
    report: File = None
    """Also write a directory to look at: JSON, CSV, Pareto plots, and a page with frames of the first videos."""
    prompts: File = None
    """A .txt, .csv or .jsonl file; by default the prompts shipped with the demo model."""
    model: str = "demo"
    """`demo`, `demo-wan`, `demo-dit`, a directory with a diffusers pipeline, or a hub id."""
    attention: str = "none"
    """Attention kernels, as for render, that full is also rendered by, to see what they cost; separated by commas."""
    weights: Weights = "plain"
    """fp8: render with each method a second time with weights in 8 bits; all are compared with full as it is."""
    video: tyro.conf.OmitArgPrefixes[VideoOptions] = field(default_factory=VideoOptions)


@dataclass(frozen=True, kw_only=True)
class FullSizeOptions(ComparedOptions):
    """A full-size model without its weights, and a size."""

    model: str = "hunyuanvideo"
    """hunyuanvideo, hunyuanvideo-1.5, wan (2.1, 14B), wan2.2 (A14B), wan2.2-ti2v (5B) or latte, and of images flux,
    dit (XL/2), pixart (alpha) or hidream (I1). All but hunyuanvideo and flux take a second pass a step."""
    preset: Text = None
    """Model, size and steps of a published benchmark: mlperf (MLPerf Inference v6.0, text to video)."""
    height: Count = None
    """Height in pixels; by default the size at which the model's papers measure."""
    width: Count = None
    """Width in pixels."""
    num_frames: Count = None
    """Frames."""
    steps: int = 50
    """Denoising steps of full sampling."""
    cfg: Literal[1, 2] = 1
    """Parts of the ranks that each compute one of the two passes of guidance."""
    ulysses: int = 1
    """Ranks that split the attention heads."""
    ring: int = 1
    """Ranks that pass keys and values around."""


@dataclass(frozen=True, kw_only=True)
class FlopsOptions(FullSizeOptions):
    """Count what methods cost on a full-size model, without its weights."""

    all_papers: tyro.conf.FlagCreatePairsOff[bool] = False
    """Count every table of the papers on ResCa and DuCa instead, beside what they say; other options do not matter."""
    report: File = None
    """With --all-papers: also write a directory to look at, a page, JSON and CSV."""


@dataclass(frozen=True, kw_only=True)
class CommOptions(FullSizeOptions):
    """Count what each rank sends with each method on a full-size model, without its weights."""

    ulysses: int = 8
    """Ranks that split the attention heads."""


@dataclass(frozen=True, kw_only=True)
class MemoryOptions(ComparedOptions):
    """Count what each rank holds of a full-size model, without loading it: weights, and what methods add."""

    model: str = "hunyuanvideo"
    """hunyuanvideo, hunyuanvideo-1.5, wan (2.1, 14B), wan2.2 (A14B) or wan2.2-ti2v (5B)."""
    methods: str = ""
    """Also the peak of methods (names or recipe files), separated by commas, or all."""
    height: int = 720
    """Height in pixels of the videos that methods are asked for."""
    width: int = 1280
    """Width in pixels."""
    num_frames: int = 129
    """Frames."""
    steps: int = 50
    """Denoising steps of full sampling."""
    weights: Weights = "plain"
    """How transformer and text encoders keep their weights, as for render."""
    gpu_memory: float = 80.0
    """Memory of a GPU in GiB, by which is judged what fits."""


@dataclass(frozen=True, kw_only=True)
class GangOptions:
    """Who samples: this process, or gangs on Ray where any of these is given."""

    gangs: Count = None
    """Prompts that are sampled at the same time, each by a gang on Ray."""
    cfg: Literal[1, 2] = 1
    """Parts of a gang's ranks, each for one of the two passes of guidance."""
    ulysses: int = 1
    """Ranks that split the attention heads, all on one node."""
    ring: int = 1
    """Groups of such ranks that pass keys and values around."""
    shard_weights: tyro.conf.FlagCreatePairsOff[bool] = False
    """Split the weights of transformer and text encoders over a gang's ranks."""
    offload: tyro.conf.FlagCreatePairsOff[bool] = False
    """Keep text encoders and VAE in pinned host memory while they are not used."""
    address: Text = None
    """Ray cluster to attach to; with gangs by default RAY_ADDRESS, or else a Ray of its own on this machine."""

    @property
    def is_asked(self) -> bool:
        """Whether Ray is."""
        return self != GangOptions()


@dataclass(frozen=True, kw_only=True)
class TuneOptions:
    """Search, by measuring, for the dense steps that reach a fidelity, and write them as a recipe."""

    out: File = None
    """The recipe file to write, by default plan.yaml; render with it by --method auto --plan FILE."""
    target: Text = None
    """Fidelity to reach with the fewest dense steps: psnr=DECIBELS against full sampling."""
    budget_dense: Count = None
    """Or: the number of dense steps to make the most of."""
    prompts: File = None
    """Prompts to measure on, typical of what will be rendered; the demo model brings its own."""
    num: Count = None
    """How many of them to fit to; by default 16, or as many as --minutes allow."""
    held_out: Count = None
    """How many more to measure on what the result is worth, which nothing is fitted to; by default twice as many."""
    check: File = None
    """Nothing is fitted: say what a plan, or any recipe file, is worth on 32 or --held-out of the prompts, beside what
    it promises, and with --out write it with the new promise."""
    minutes: Number = None
    """End the search after so many minutes."""
    search: Literal["cross-validation", "even", "l2p", "budcache", "dpcache"] = "cross-validation"
    """How places and weights are found; even: weights alone, at even distances; the last three are published methods,
    to compare with, and take --budget-dense."""
    model: str = "demo"
    """`demo`, `demo-wan`, `demo-dit`, a directory with a diffusers pipeline, or a hub id."""
    on: tyro.conf.OmitArgPrefixes[GangOptions] = field(default_factory=GangOptions)
    video: tyro.conf.OmitArgPrefixes[VideoOptions] = field(default_factory=VideoOptions)


@dataclass(frozen=True, kw_only=True)
class AnalyzeOptions:
    """Repeat the analyses of the ResCa and DuCa papers on a model; each gives a plot and a CSV."""

    out: Path = Path("analysis")
    """Directory for the plots and tables."""
    only: Text = None
    """Analyses to make, separated by commas; by default all."""
    prompts: File = None
    """Prompts to measure on; the demo model brings its own."""
    num: int = 2
    """How many of them."""
    model: str = "demo"
    """`demo`, `demo-wan`, `demo-dit`, a directory with a diffusers pipeline, or a hub id."""
    video: tyro.conf.OmitArgPrefixes[VideoOptions] = field(default_factory=VideoOptions)


@dataclass(frozen=True, kw_only=True)
class OverheadOptions:
    """What rendering through Ray adds to the same work in a plain torchrun process, measured in turns."""

    num: int = 12
    """Videos of a turn, the first of which does not count."""
    rounds: int = 3
    """How often each way has its turn."""
    num_frames: int = 33
    """Frames of each video; decides, with the method, how long one takes."""
    method: str = "auto"
    """A method, or a file with a recipe."""
    cpus_per_rank: Count = None
    """Cores of the rank in both ways; by default all, and nothing is left for Ray's own processes."""
    prompts: File = None
    """Whose first prompt is rendered; by default the demo's."""
    model: str = "demo"
    """`demo`, `demo-wan`, `demo-dit`, a directory with a diffusers pipeline, or a hub id."""
    json: File = None
    """Write the table to this file, as a list of rows."""


@dataclass(frozen=True, kw_only=True)
class DriverOptions:
    """What a driver takes for itself: processor, memory, and seconds from a free gang to its next item.

    The whole driver runs on a Ray of its own, with ranks that only pass the time.
    """

    gangs: str = "8"
    """Numbers of gangs, separated by commas; each is measured for itself."""
    ranks: int = 1
    """Ranks of a gang."""
    ranks_per_process: int = 1
    """With 1, each is an actor with a process of its own, started as ever; with more they share some that are there."""
    item_seconds: int = 30
    """What an item takes on average."""
    seconds: int = 60
    """For how long is measured, once all gangs run; at least twice as long as an item takes."""
    terminal: tyro.conf.FlagCreatePairsOff[bool] = False
    """With the bar that is shown on a terminal."""
    json: File = None
    """Write the table to this file, as a list of rows."""
