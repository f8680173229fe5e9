"""Where the seconds go: true denoising, clustering, simulated denoising; ResCa, Fig. S2."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

import torch

from caching.recipe.recipe import RECIPES
from jobs.measure.analysis.study import Analysis, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Part(NamedTuple):
    """The seconds of one part of the steps of one kind."""

    steps: str
    part: str
    seconds: float


class PartTimes:
    """Seconds by part of a step; work on a GPU is waited for."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Time the block."""
        started = time.perf_counter()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds[part] += time.perf_counter() - started


def analyse(study: Study) -> Analysis:
    """Seconds a video of each part of the denoising loop, in dense and in sparse steps, with `resca`."""
    study.sample(RECIPES["resca"])  # first-time costs
    times = PartTimes()
    study.sample(RECIPES["resca"], times)
    total = {part: seconds / study.num_prompts for part, seconds in times.seconds.items()}
    other = total["step"] - total["dense"] - total["proxies"] - total["simulation"]
    parts = [
        Part("dense", "true denoising", total["dense"] - total["clustering"]),
        Part("dense", "clustering", total["clustering"]),
        Part("sparse", "true denoising", total["proxies"]),
        Part("sparse", "simulated denoising", total["simulation"]),
        Part("sparse", "other", other),
    ]
    return Analysis(rows=[part._asdict() for part in parts], draw=lambda figure: _draw(figure, parts))


def _draw(figure: "Figure", parts: list[Part]) -> None:
    axis = figure.subplots()
    ends = {"dense": 0.0, "sparse": 0.0}
    for number, part in enumerate(parts):
        label = f"{part.part} ({part.steps})"
        axis.barh(part.steps, part.seconds, left=ends[part.steps], color=f"C{number}", label=label)
        ends[part.steps] += part.seconds
    axis.set_xlabel("seconds a video")
    axis.legend()
