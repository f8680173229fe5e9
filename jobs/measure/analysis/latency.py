"""Where the seconds go: true denoising, clustering, simulated denoising; ResCa, Fig. S2."""

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from matplotlib.figure import Figure

from caching.recipe.recipe import RECIPES
from jobs.measure.analysis.study import Analysis, Row, Study


class PartTimes:
    """Seconds by part of a step; work on a GPU is waited for."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Time the block."""
        started = time.perf_counter()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds[part] += time.perf_counter() - started  # pyright: ignore[reportArgumentType]


def analyse(study: Study) -> Analysis:
    """Seconds a video of each part of the denoising loop, in dense and in sparse steps, with `resca`."""
    study.judge.sample(RECIPES["resca"])  # first-time costs
    times = PartTimes()
    study.judge.sample(RECIPES["resca"], timed=times)
    total = {part: seconds / study.num_prompts for part, seconds in times.seconds.items()}
    other = total["step"] - total["dense"] - total["proxies"] - total["simulation"]
    rows: list[Row] = [
        {"steps": "dense", "part": "true denoising", "seconds": total["dense"] - total["clustering"]},
        {"steps": "dense", "part": "clustering", "seconds": total["clustering"]},
        {"steps": "sparse", "part": "true denoising", "seconds": total["proxies"]},
        {"steps": "sparse", "part": "simulated denoising", "seconds": total["simulation"]},
        {"steps": "sparse", "part": "other", "seconds": other},
    ]
    return Analysis(rows=rows, draw=lambda figure: _draw(figure, rows))


def _draw(figure: Figure, rows: list[Row]) -> None:
    axis = figure.subplots()
    ends = {"dense": 0.0, "sparse": 0.0}
    for number, row in enumerate(rows):
        label = f"{row['part']} ({row['steps']})"
        axis.barh(row["steps"], row["seconds"], left=ends[row["steps"]], color=f"C{number}", label=label)
        ends[row["steps"]] += row["seconds"]
    axis.set_xlabel("seconds a video")
    axis.legend()
