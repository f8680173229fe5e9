"""`resca benchmark`: methods compared on the same prompts and seeds, in one process, interleaved."""

import statistics
import time
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from rich.console import Console

from caching.engine import Engine
from caching.recipe import Recipe
from caching.schedule import Interval
from jobs.demo import PROMPTS_FILE
from jobs.demo.oracle import look
from jobs.demo.scenes import Scene, scene_of
from jobs.errors import BadInput
from jobs.facts import ModelFacts, read_facts
from jobs.measure import peak_memory, psnr_db, ssim
from jobs.options import BenchmarkOptions, VideoOptions
from jobs.pipeline import Prompt, Renderer, Sampling, load_pipeline
from jobs.progress import make_console, print_rows, write_rows
from jobs.prompts import Item, read_items
from jobs.recipes import resolve_method
from jobs.render import defaults_for, guidance_for


@dataclass
class Tally:
    """What was measured of one method, a value a video."""

    recipe: Recipe
    seconds: list[float] = field(default_factory=list)
    psnr_db: list[float] = field(default_factory=list)
    ssim: list[float] = field(default_factory=list)
    oracle: list[bool] = field(default_factory=list)
    tflops: list[float] = field(default_factory=list)
    tflops_full: list[float] = field(default_factory=list)
    cache_bytes: int = 0
    peak_bytes: int = 0
    dense_steps: int = 0
    sparse_steps: int = 0


class Contest:
    """The contestants, taking turns on one loaded pipeline."""

    def __init__(self, facts: ModelFacts, video: VideoOptions) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = facts.dtype if video.dtype == "auto" else video.dtype
        pipeline = load_pipeline(facts.source, dtype=dtype, device=device, revision=facts.revision)
        self.renderer = Renderer(pipeline, template=facts.defaults.prompt_template)
        self.guidance = guidance_for(facts, video)

    def sample(self, method: Recipe, prompt: Prompt, sampling: Sampling) -> tuple[np.ndarray, float, int, Engine]:
        """Render one video: its frames, seconds of the denoising loop, the loop's peak memory, and the engine."""
        engine = self.renderer.use(method)
        with peak_memory() as peak:
            started = time.perf_counter()
            latents = self.renderer.denoise(prompt, sampling)
            if latents.is_cuda:
                torch.cuda.synchronize()
            seconds = time.perf_counter() - started
        return self.renderer.decode(latents), seconds, peak.bytes, engine

    def sampling(self, item: Item) -> Sampling:
        """What an item of the prompt file asks for."""
        size = item.model_dump(include={"seed", "height", "width", "num_frames", "steps"})
        return Sampling(guidance=self.guidance, **size)

    def play(self, tally: Tally, item: Item, prompt: Prompt, reference: np.ndarray | None) -> np.ndarray:
        """Render one item with one method and note everything about it."""
        frames, seconds, peak, engine = self.sample(tally.recipe, prompt, self.sampling(item))
        flops, flops_full = self.renderer.flops(prompt, self.sampling(item))
        tally.seconds.append(seconds)
        tally.tflops.append(flops / 1e12)
        tally.tflops_full.append(flops_full / 1e12)
        tally.dense_steps, tally.sparse_steps = engine.dense_steps, engine.sparse_steps
        tally.cache_bytes = max(tally.cache_bytes, engine.peak_cache_bytes)
        tally.peak_bytes = max(tally.peak_bytes, peak)
        if reference is not None:
            tally.psnr_db.append(psnr_db(frames, reference))
            tally.ssim.append(ssim(frames, reference))
        if (scene := scene_of(item.prompt)) is not None:
            tally.oracle.append(_recognised(frames, scene))
        return frames


def run(options: BenchmarkOptions) -> int:
    """Compare the methods and print one row each. Raises BadInput before anything is loaded."""
    console = make_console()
    _check(options)
    tallies = [Tally(resolve_method(name, options.cache_for(name))) for name in options.method_names()]
    facts = read_facts(options.model)
    items = _items(options, facts)
    _check_schedules(tallies, items)
    contest = Contest(facts, options.video)
    _warm_up(contest, tallies, items[0])
    for number, item in enumerate(items):
        prompt = contest.renderer.encode(item.prompt)
        reference = None
        for tally in sorted(tallies, key=lambda tally: tally.recipe.name != "full"):
            frames = contest.play(tally, item, prompt, reference)
            reference = frames if tally.recipe.name == "full" else reference
        _report(console, number, len(items), tallies)
    rows = make_rows(tallies)
    print_rows(console, rows)
    if options.json:
        write_rows(options.json, rows)
    return 0


def _check(options: BenchmarkOptions) -> None:
    if options.num < 1:
        raise BadInput(f"--num must be at least 1, not {options.num}")


def _check_schedules(tallies: list[Tally], items: list[Item]) -> None:
    for schedule in (tally.recipe.schedule for tally in tallies):
        for item in items:
            try:
                schedule.start(schedule.num_steps(item.steps))
            except ValueError as error:
                raise BadInput(f"{item.where}: {error}") from error


def make_rows(tallies: list[Tally]) -> list[dict[str, Any]]:
    """One row a method: medians of seconds, means of fidelity, and ratios to full sampling."""
    full = next((tally for tally in tallies if tally.recipe.name == "full"), None)
    return [_row(tally, statistics.median(full.seconds) if full else None) for tally in tallies]


def _row(tally: Tally, full_seconds: float | None) -> dict[str, Any]:
    seconds = statistics.median(tally.seconds)
    return {
        "method": tally.recipe.name,
        "dense_steps": tally.dense_steps,
        "sparse_steps": tally.sparse_steps,
        "seconds": round(seconds, 4),
        "seconds_min": round(min(tally.seconds), 4),
        "seconds_max": round(max(tally.seconds), 4),
        "speedup": round(full_seconds / seconds, 3) if full_seconds else None,
        "tflops": round(statistics.mean(tally.tflops), 4),
        "flops_ratio": round(sum(tally.tflops_full) / sum(tally.tflops), 3),
        "psnr_db": _mean(tally.psnr_db),
        "ssim": _mean(tally.ssim),
        "oracle": _mean([float(seen) for seen in tally.oracle]),
        "cache_bytes": tally.cache_bytes,
        "peak_bytes": tally.peak_bytes,
        "num": len(tally.seconds),
        "recipe": tally.recipe.describe(),
    }


def _mean(values: list[float]) -> float | None:
    return round(statistics.mean(values), 4) if values else None


def _recognised(frames: np.ndarray, scene: Scene) -> bool:
    return look(torch.from_numpy(frames).float() / 255).matches(scene)


def _items(options: BenchmarkOptions, facts: ModelFacts) -> list[Item]:
    """The prompts, repeated with further seeds until there are enough."""
    lines = read_items(options.prompts or PROMPTS_FILE, defaults_for(facts, options.video))
    for line in lines:
        facts.check_size(line.height, line.width, line.num_frames)
    repeats = -(-options.num // len(lines))
    many = [line.model_copy(update={"seed": line.seed + 1000 * r}) for r in range(repeats) for line in lines]
    return many[: options.num]


def _warm_up(contest: Contest, tallies: list[Tally], item: Item) -> None:
    """A few steps of each method, dense and sparse, so that first-time costs are in nobody's figures."""
    short = replace(contest.sampling(item), steps=min(item.steps, 8))
    prompt = contest.renderer.encode(item.prompt)
    for tally in tallies:
        contest.sample(replace(tally.recipe, schedule=Interval(every=4)), prompt, short)


def _report(console: Console, number: int, total: int, tallies: list[Tally]) -> None:
    latest = ", ".join(f"{tally.recipe.name} {tally.seconds[-1]:.2f} s" for tally in tallies)
    console.print(f"{number + 1}/{total}: {latest}", soft_wrap=True)
