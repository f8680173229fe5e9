"""Floating-point operations of a generation, counted on the meta device by running the recipe itself."""

import json
from functools import lru_cache
from typing import Any

import diffusers
import torch
from torch.utils.flop_counter import FlopCounterMode

from caching.engine import Engine
from caching.recipe import RECIPES, Recipe

Grid = tuple[int, int, int]


def count_flops(config: dict[str, Any], method: Recipe, *, grid: Grid, num_text_tokens: int, num_steps: int) -> float:
    """FLOPs of a whole denoising loop, all ranks together; a multiply-add counts 2.

    Args:
        config: a `diffusers` transformer's configuration, with `_class_name`.
        grid: tokens along (frames, height, width).
        num_steps: of full sampling.
    """
    return _count(json.dumps(dict(config), sort_keys=True, default=str), method, grid, num_text_tokens, num_steps)


def count_full_flops(config: dict[str, Any], *, grid: Grid, num_text_tokens: int, num_steps: int) -> float:
    """FLOPs without any caching; every step costs the same."""
    one = count_flops(config, RECIPES["full"], grid=grid, num_text_tokens=num_text_tokens, num_steps=1)
    return num_steps * one


@lru_cache(maxsize=256)
def _count(config: str, method: Recipe, grid: Grid, num_text_tokens: int, num_steps: int) -> float:
    settings = json.loads(config)
    with torch.device("meta"):
        model_class = getattr(diffusers, settings["_class_name"])
        transformer = model_class.from_config(settings).eval()
    engine = Engine(transformer, method)
    num_steps = method.schedule.num_steps(num_steps)
    engine.begin(grid, [1 - step / num_steps for step in range(num_steps)])
    inputs = engine.adapter.example_inputs(num_text_tokens, torch.device("meta"))
    patches = torch.empty(1, grid[0] * grid[1] * grid[2], engine.adapter.patch_values, device="meta")
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        for _ in range(num_steps):
            engine.forward(patches, **inputs)
    return float(counter.get_total_flops())
