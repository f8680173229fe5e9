"""Where the seconds go: true denoising, clustering, simulated denoising; ResCa, Fig. S2."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from caching.engine import Engine
from caching.proxies.proxies import Proxies
from caching.proxies.simulation import ProxySimulation
from caching.recipe.recipe import RECIPES
from jobs.measure.analysis.study import Analysis, Study

PARTS = {
    "step": (Engine, "_advance"),
    "dense": (Engine, "_dense"),
    "clustering": (Proxies, "choose"),
    "true denoising": (Proxies, "_denoise"),
    "simulated denoising": (ProxySimulation, "advance"),
}


def analyse(study: Study) -> Analysis:
    """Seconds a video of each part of the denoising loop, in dense and in sparse steps, with `resca`."""
    study.judge.sample(RECIPES["resca"])  # first-time costs
    with ExitStack() as stack:
        clocks = {part: stack.enter_context(stopwatch(*place)) for part, place in PARTS.items()}
        study.judge.sample(RECIPES["resca"])
    total = {part: sum(seconds) / study.num_prompts for part, seconds in clocks.items()}
    rows = [
        {"steps": "dense", "part": "true denoising", "seconds": total["dense"] - total["clustering"]},
        {"steps": "dense", "part": "clustering", "seconds": total["clustering"]},
        {"steps": "sparse", "part": "true denoising", "seconds": total["true denoising"]},
        {"steps": "sparse", "part": "simulated denoising", "seconds": total["simulated denoising"]},
        {
            "steps": "sparse",
            "part": "other",
            "seconds": total["step"] - total["dense"] - total["true denoising"] - total["simulated denoising"],
        },
    ]
    return Analysis(rows=rows, draw=lambda figure: _draw(figure, rows))


@contextmanager
def stopwatch(owner: type, name: str) -> Iterator[list[float]]:
    """The seconds of each call of a method, while the block runs; work on a GPU is waited for."""
    original, seconds = getattr(owner, name), []

    def timed(*args: Any, **kwargs: Any) -> Any:
        started = time.perf_counter()
        result = original(*args, **kwargs)
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
        return result

    setattr(owner, name, timed)
    try:
        yield seconds
    finally:
        setattr(owner, name, original)


def _draw(figure: Any, rows: list[dict[str, Any]]) -> None:
    axis = figure.subplots()
    ends = {"dense": 0.0, "sparse": 0.0}
    for number, row in enumerate(rows):
        label = f"{row['part']} ({row['steps']})"
        axis.barh(row["steps"], row["seconds"], left=ends[row["steps"]], color=f"C{number}", label=label)
        ends[row["steps"]] += row["seconds"]
    axis.set_xlabel("seconds a video")
    axis.legend()
