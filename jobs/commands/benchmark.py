"""`resca benchmark`: methods compared on the same prompts and seeds, in one process, interleaved."""

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from rich.console import Console

from caching.recipe.recipe import Multistep, Recipe, Taylor
from caching.recipe.schedule import Interval
from cluster.heap import keep_freed_memory
from jobs.demo import PROMPTS_FILE
from jobs.demo.items import benchmark_items
from jobs.demo.oracle import look
from jobs.demo.scenes import Scene, scene_of
from jobs.driver.batch_plan import defaults_for, guidance_for
from jobs.driver.view import make_console, print_rows, write_rows
from jobs.errors import DONE, INTERRUPTED, BadInput
from jobs.machine import describe_run
from jobs.measure.contestants import Contestant, PeerContestant, RecipeContestant, Run
from jobs.measure.fidelity import lpips, psnr_db, ssim
from jobs.measure.report import write_report
from jobs.models.facts import ModelFacts, read_facts
from jobs.options.measure import BenchmarkOptions, VideoOptions
from jobs.rank.load import load_pipeline
from jobs.rank.renderer import Prompt, Renderer, Sampling
from jobs.request.prompts import Item, read_items
from jobs.request.recipes import read_recipe, resolve_method

SHOWN = 4  # videos on a report's page


@dataclass
class Tally:
    """What was measured of one contestant: its runs, and how they compare with full sampling."""

    contestant: Contestant
    runs: list[Run] = field(default_factory=list)
    psnr_db: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    lpips: list[float | None] = field(default_factory=list)  # None where its weights are missing
    oracle: list[bool | None] = field(default_factory=list)  # None where a prompt shows nothing that it knows

    def keep(self, count: int) -> None:
        """Forget what came after the first `count` videos."""
        for values in (self.runs, self.psnr_db, self.ssim, self.lpips, self.oracle):
            del values[count:]

    @property
    def is_full(self) -> bool:
        """Whether the others are measured against this one."""
        return self.contestant.name == "full"

    @property
    def seconds(self) -> list[float]:
        """Of the denoising loop, a value a video."""
        return [run.seconds for run in self.runs]


class Contest:
    """The contestants, taking turns on one loaded pipeline."""

    def __init__(self, facts: ModelFacts, video: VideoOptions) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if device == "cpu":
            keep_freed_memory()
        dtype = facts.dtype if video.dtype == "auto" else video.dtype
        pipeline = load_pipeline(facts.source, dtype=dtype, device=device, revision=facts.revision)
        self.renderer = Renderer(pipeline, template=facts.defaults.prompt_template, compiled=video.compile)
        self.guidance = guidance_for(facts, video)

    def sampling(self, item: Item) -> Sampling:
        """What an item of the prompt file asks for."""
        size = item.model_dump(include={"seed", "height", "width", "num_frames", "steps"})
        return Sampling(guidance=self.guidance, **size)

    def play(self, tally: Tally, item: Item, prompt: Prompt, reference: np.ndarray | None) -> np.ndarray:
        """Render one item with one contestant and note everything about it."""
        run = tally.contestant.run(self.renderer, prompt, self.sampling(item))
        frames = self.renderer.decode(run.latents)
        tally.runs.append(replace(run, latents=run.latents[:0]))
        if reference is not None:
            tally.psnr_db.append(psnr_db(frames, reference))
            tally.ssim.append(ssim(frames, reference))
            tally.lpips.append(lpips(frames, reference))
        scene = scene_of(item.prompt)
        tally.oracle.append(None if scene is None else _recognised(frames, scene))
        return frames

    def play_all(self, tallies: list[Tally], item: Item) -> dict[str, np.ndarray]:
        """Render one item with every contestant, full sampling first; gives the video of each."""
        prompt = self.renderer.encode(item.prompt)
        reference, videos = None, {}
        for tally in sorted(tallies, key=lambda tally: not tally.is_full):
            videos[tally.contestant.name] = frames = self.play(tally, item, prompt, reference)
            reference = frames if tally.is_full else reference
        return videos

    def warm_up(self, tallies: list[Tally], item: Item) -> None:
        """A few steps of each contestant, so that first-time costs are in nobody's figures."""
        short = replace(self.sampling(item), steps=min(item.steps, 8))
        prompt = self.renderer.encode(item.prompt)
        for tally in tallies:
            tally.contestant.warm_up(self.renderer, prompt, short)


def run(options: BenchmarkOptions) -> int:
    """Compare the methods and print one row each. Raises BadInput before anything is loaded."""
    console = make_console()
    _check(options)
    facts = read_facts(options.model)
    items = _items(options, facts)
    methods = _methods(options, facts, items)
    tallies = [Tally(contestant) for contestant in _contestants(methods, options.peers, console)]
    contest = Contest(facts, options.video)
    contest.warm_up(tallies, items[0])
    shown: dict[str, dict[str, np.ndarray]] = {}
    played = _play(contest, tallies, items, shown if options.report else None, console)
    rows = make_rows(tallies)
    print_rows(console, rows)
    if options.json:
        write_rows(options.json, rows)
    if options.report:
        peers = len(tallies) - len(methods)
        title = f"{len(methods)} methods and {peers} peers, {options.model}: {played} videos"
        write_report(options.report, rows, shown, title, describe_run(sys.argv[1:]))
    return DONE if played == len(items) else INTERRUPTED


def _play(
    contest: Contest, tallies: list[Tally], items: list[Item], shown: dict[str, Any] | None, console: Console
) -> int:
    """Render every item with every contestant, or those before Ctrl-C; returns how many, keeps the first in `shown`."""
    played = 0
    try:
        for item in items:
            videos = contest.play_all(tallies, item)
            if shown is not None and played < SHOWN:
                shown[f"{item.prompt} (seed {item.seed})"] = videos
            played += 1
            _report(console, played, len(items), tallies)
    except KeyboardInterrupt:
        if not played:
            raise
        console.print(f"stopped: figures are of {played} of {len(items)} videos")
        for tally in tallies:
            tally.keep(played)
    return played


def _contestants(methods: list[Recipe], with_peers: bool, console: Console) -> list[Contestant]:
    """Our methods, and if asked for the peers that are installed."""
    contestants: list[Contestant] = [RecipeContestant(method, _warm_up_recipe(method)) for method in methods]
    if not with_peers:
        return contestants
    from jobs.measure.peers import PEERS

    for package in sorted({str(peer.needs) for peer in PEERS if not peer.available}):
        console.print(f"without {package}, which is not installed", soft_wrap=True)
    return [*contestants, *(PeerContestant(peer) for peer in PEERS if peer.available)]


def _warm_up_recipe(method: Recipe) -> Recipe:
    """The method with dense and sparse steps in few steps."""
    predictor = Taylor() if isinstance(method.predictor, Multistep) else method.predictor
    return replace(method, schedule=Interval(every=4), predictor=predictor)


def _check(options: BenchmarkOptions) -> None:
    if options.num < 1:
        raise BadInput(f"--num must be at least 1, not {options.num}")


def _methods(options: BenchmarkOptions, facts: ModelFacts, items: list[Item]) -> list[Recipe]:
    """The methods that were asked for; all includes the plans beside the model, if made for so many steps."""
    methods = [resolve_method(name, options.cache_for(name), facts.plans) for name in options.method_names()]
    for method in methods:
        if complaint := _complaint(method, items):
            raise BadInput(complaint)
    if not options.wants_all:
        return methods
    plans = [read_recipe(facts.plans[name]) for name in sorted(facts.plans, key=lambda name: (len(name), name))]
    return [*methods, *(plan for plan in plans if not _complaint(plan, items))]


def _complaint(method: Recipe, items: list[Item]) -> str | None:
    """Why a method cannot sample one of the items, if it cannot."""
    for item in items:
        try:
            method.schedule.start(method.schedule.num_steps(item.steps))
        except ValueError as error:
            return f"{item.where}: {error}"
    return None


def make_rows(tallies: list[Tally]) -> list[dict[str, Any]]:
    """One row a method: medians of seconds, means of fidelity, and ratios to full sampling."""
    full = next((tally for tally in tallies if tally.is_full), None)
    return [_row(tally, statistics.median(full.seconds) if full else None) for tally in tallies]


def _row(tally: Tally, full_seconds: float | None) -> dict[str, Any]:
    seconds, runs = statistics.median(tally.seconds), tally.runs
    return {
        "method": tally.contestant.name,
        "dense_steps": _mean([run.dense_steps for run in runs]),
        "sparse_steps": _mean([run.sparse_steps for run in runs]),
        "seconds": round(seconds, 4),
        "seconds_min": round(min(tally.seconds), 4),
        "seconds_max": round(max(tally.seconds), 4),
        "speedup": round(full_seconds / seconds, 3) if full_seconds else None,
        "tflops": _mean([run.flops / 1e12 for run in runs]),
        "flops_ratio": round(sum(run.flops_full for run in runs) / sum(run.flops for run in runs), 3),
        "psnr_db": _mean(tally.psnr_db),
        "psnr_db_min": min(tally.psnr_db, default=None),
        "ssim": _mean(tally.ssim),
        "lpips": _mean(tally.lpips),
        "oracle": _mean([float(seen) for seen in tally.oracle if seen is not None]),
        "cache_bytes": max((run.cache_bytes for run in runs if run.cache_bytes is not None), default=None),
        "peak_bytes": max(run.peak_bytes for run in runs),
        "num": len(runs),
        "recipe": tally.contestant.describe(),
    }


def _mean(values: Sequence[float | None]) -> float | None:
    """The mean, an integer where it is one; None if anything is not known."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    mean = round(statistics.mean(known), 4)
    return int(mean) if all(isinstance(value, int) for value in known) and mean == int(mean) else mean


def _recognised(frames: np.ndarray, scene: Scene) -> bool:
    return look(torch.from_numpy(frames).float() / 255).matches(scene)


def _items(options: BenchmarkOptions, facts: ModelFacts) -> list[Item]:
    """The prompts, repeated with further seeds until there are enough; the demo model has some for any number."""
    defaults = defaults_for(facts, options.video)
    if options.prompts is None and options.model == "demo":
        lines = benchmark_items(options.num, defaults)
    else:
        lines = read_items(options.prompts or PROMPTS_FILE, defaults)
    for line in lines:
        facts.check_size(line.height, line.width, line.num_frames)
    repeats = -(-options.num // len(lines))
    many = [line.model_copy(update={"seed": line.seed + 1000 * r}) for r in range(repeats) for line in lines]
    return many[: options.num]


def _report(console: Console, played: int, total: int, tallies: list[Tally]) -> None:
    latest = ", ".join(f"{tally.contestant.name} {tally.seconds[-1]:.2f} s" for tally in tallies)
    console.print(f"{played}/{total}: {latest}", soft_wrap=True)
