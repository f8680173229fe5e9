"""Contestants taking turns on one loaded pipeline, and what was measured of each."""

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from cluster.heap import keep_freed_memory
from jobs.demo.oracle import look
from jobs.measure.contestants import Contestant, Run
from jobs.measure.fidelity import lpips, psnr_db, ssim
from jobs.models.facts import ModelFacts
from jobs.options.shared import VideoOptions
from jobs.rank.load import load_pipeline
from jobs.rank.renderer import Prompt, Renderer, Sampling
from jobs.request.guidance import guides_for, sampling_of
from jobs.request.prompts import Item


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
    """The contestants, taking turns on one loaded pipeline, and with `fp8` on a second one with weights in 8 bits."""

    def __init__(self, facts: ModelFacts, video: VideoOptions, *, fp8: bool = False) -> None:
        self.renderer = load_renderer(facts, video)
        self.in_fp8 = load_renderer(facts, video, fp8=True) if fp8 else self.renderer
        self.guides = guides_for(facts, video)

    def renderer_of(self, tally: Tally) -> Renderer:
        """The one that a contestant renders with."""
        return self.in_fp8 if tally.contestant.fp8 else self.renderer

    def sampling(self, item: Item) -> Sampling:
        """What an item of the prompt file asks for."""
        return sampling_of(item, self.guides)

    def encode(self, item: Item, renderer: Renderer | None = None) -> Prompt:
        """The texts of an item: its prompt, and the one that guides it, if there is one."""
        renderer = renderer or self.renderer
        return renderer.encode(item.prompt, renderer.family.negative_prompt(self.sampling(item)))

    def play(self, tally: Tally, item: Item, prompt: Prompt, reference: np.ndarray | None) -> np.ndarray:
        """Render one item with one contestant and note everything about it."""
        run = tally.contestant.run(self.renderer_of(tally), prompt, self.sampling(item))
        frames = self.renderer.decode(run.latents)
        tally.runs.append(replace(run, latents=run.latents[:0]))
        if reference is not None:
            tally.psnr_db.append(psnr_db(frames, reference))
            tally.ssim.append(ssim(frames, reference))
            tally.lpips.append(lpips(frames, reference))
        tally.oracle.append(look(torch.from_numpy(frames).float() / 255).is_of(item.prompt))
        return frames

    def play_all(self, tallies: list[Tally], item: Item) -> dict[str, np.ndarray]:
        """Render one item with every contestant, full sampling first; gives the video of each."""
        encoded = self._encoded(item, tallies)
        reference, videos = None, {}
        for tally in sorted(tallies, key=lambda tally: not tally.is_full):
            prompt = encoded[tally.contestant.fp8]
            videos[tally.contestant.name] = frames = self.play(tally, item, prompt, reference)
            reference = frames if tally.is_full else reference
        return videos

    def warm_up(self, tallies: list[Tally], item: Item) -> None:
        """A few steps of each contestant, so that first-time costs are in nobody's figures."""
        short = replace(self.sampling(item), steps=min(item.steps, 8))
        encoded = self._encoded(item, tallies)
        for tally in tallies:
            tally.contestant.warm_up(self.renderer_of(tally), encoded[tally.contestant.fp8], short)

    def _encoded(self, item: Item, tallies: list[Tally]) -> dict[bool, Prompt]:
        """The prompt as text encoders with whole weights, and with those in 8 bits, understand it; as far as needed."""
        renderers = {tally.contestant.fp8: self.renderer_of(tally) for tally in tallies}
        return {fp8: self.encode(item, renderer) for fp8, renderer in renderers.items()}


def load_renderer(facts: ModelFacts, video: VideoOptions, *, fp8: bool = False) -> Renderer:
    """The model in this process alone, on a GPU if there is one."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu":
        keep_freed_memory()
    dtype = facts.dtype if video.dtype == "auto" else video.dtype
    pipeline = load_pipeline(
        facts.source, dtype=dtype, device=device, revision=facts.revision, variant=facts.variant, fp8=fp8
    )
    return Renderer(pipeline, template=facts.defaults.prompt_template, compiled=video.compile)
