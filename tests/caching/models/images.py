"""What image models of a doubled batch are tested by, whatever the model."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from caching.engine import Engine
from caching.models.levels import levels_of_epsilon
from caching.recipe.recipe import Recipe, Schedule
from caching.recipe.schedule import Interval, Until
from tests.caching.conftest import SMALL_RECIPES

STEPS = 9
GRID = (1, 8, 8)
Generate = Callable[..., Tensor]


def with_weights(transformer: nn.Module) -> Any:
    """Of a size that makes its blocks matter."""
    for parameter in transformer.parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.15)
    return transformer.eval()


def short(name: str, every: int) -> Recipe:
    """A recipe with a dense step in `every`; T-GATE goes by its gate."""
    schedule: Schedule = Interval(every=every)
    if name == "t-gate":
        schedule = Until(part=1.0 if every == 1 else 0.4)
    return replace(SMALL_RECIPES[name], schedule=schedule)


def cached(pipeline: Any, generate: Generate, method: Recipe, **options: Any) -> tuple[Tensor, Engine]:
    """What a pipeline gives with a recipe, and the engine that is off it again."""
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(STEPS)
    engine = Engine(pipeline.transformer, method)
    engine.begin(GRID, levels_of_epsilon(scheduler.alphas_cumprod[scheduler.timesteps]), batched=2)
    try:
        return generate(pipeline, **options), engine
    finally:
        engine.detach()


def distance(found: Tensor, expected: Tensor) -> float:
    """Of two images or latents, relative to what is expected."""
    return ((found - expected).norm() / expected.norm()).item()
