"""Steps of any recipe on any family, on a GPU that is not there, and what is seen of them."""

from collections import Counter
from dataclasses import dataclass, field, replace
from math import prod

import torch
from diffusers import (
    FluxTransformer2DModel,
    HunyuanVideo15Transformer3DModel,
    HunyuanVideoTransformer3DModel,
    WanTransformer3DModel,
)
from torch import nn

from caching.engine import Engine
from caching.group import Group
from caching.models.state import Grid
from caching.recipe.recipe import RECIPES, Recipe
from caching.recipe.schedule import Interval, Places, Until
from caching.recipe.tokens import TrajectoryMedoids
from tests.caching.models.test_hunyuan_video_15 import CONFIG as CONFIG_OF_HUNYUAN_VIDEO_15
from tests.caching.models.test_wan import CONFIG as CONFIG_OF_WAN
from tests.fake_cuda import CUDA, MODE, Seen, devices_and_formats, on_fake_cuda

GRID = (17, 30, 40)  # of 480x640x65: as no values are computed, it costs no more than a small one
FEW = (3, 8, 10)  # for what is computed piece by piece
NUM_STEPS = 8
JOINT = dict(num_layers=1, num_single_layers=2, attention_head_dim=16, num_attention_heads=24, pooled_projection_dim=8)
FAMILIES = {
    "hunyuanvideo": (
        HunyuanVideoTransformer3DModel,
        dict(**JOINT, in_channels=4, out_channels=4, num_refiner_layers=1, text_embed_dim=16, rope_axes_dim=(4, 6, 6)),
    ),
    "hunyuanvideo-1.5": (
        HunyuanVideo15Transformer3DModel,
        CONFIG_OF_HUNYUAN_VIDEO_15 | dict(num_attention_heads=24, attention_head_dim=16, rope_axes_dim=(4, 6, 6)),
    ),
    "flux": (
        FluxTransformer2DModel,
        dict(**JOINT, in_channels=16, joint_attention_dim=16, axes_dims_rope=(4, 6, 6), guidance_embeds=True),
    ),
    "wan": (
        WanTransformer3DModel,
        CONFIG_OF_WAN | dict(num_attention_heads=24, attention_head_dim=16),
    ),
}
NUM_TEXT = 7
# What the host reads once a prompt: the length of each text, and whether there is an image.
ANSWERS_OF_TEXT = {"encoder_attention_mask": NUM_TEXT, "encoder_attention_mask_2": 0, "image_embeds": 1}
# What it reads beside them: a change, or the square of an error, and what it is a part of.
# Or changes of output and latents, the size of the output, and the last change of the latents.
ANSWERS = {"teacache": (0.05, 1.0), "easycache": (1.0, 1.0, 1.0, 0.01)}
MODELS: dict[tuple[str, torch.dtype], nn.Module] = {}


@dataclass(kw_only=True)
class SeenStep:
    """One step: its kind, its output as (device, number format), and places of ours with what was seen there."""

    dense: bool
    output: set[tuple[str, str]]
    reads: Counter[str] = field(default_factory=Counter)
    copies: Counter[str] = field(default_factory=Counter)
    float32: Counter[str] = field(default_factory=Counter)
    on_host: Counter[str] = field(default_factory=Counter)


@dataclass(kw_only=True)
class Sight:
    """The steps, and (device, number format) of everything that is kept after them."""

    steps: list[SeenStep]
    kept: set[tuple[str, str]]


def shortened(name: str) -> Recipe:
    """A recipe whose first 8 steps have all that it ever does; proxies are computed in every sparse step."""
    method = RECIPES[name]
    if isinstance(method.schedule, Interval) and method.schedule.has_sparse_steps:
        method = replace(method, schedule=Interval(every=3))
    if isinstance(method.schedule, Until):
        method = replace(method, schedule=Places(dense=(0, 1)))
    if isinstance(method.tokens, TrajectoryMedoids):
        method = replace(method, tokens=replace(method.tokens, every=1))
    return method


def model_of(family: str, dtype: torch.dtype) -> nn.Module:
    """A narrow model on the device that is not there, made once."""
    if (family, dtype) not in MODELS:
        make, settings = FAMILIES[family]
        MODELS[family, dtype] = on_fake_cuda(make, dtype, **settings)
    return MODELS[family, dtype]


def see_family(family: str, name: str, dtype: torch.dtype) -> Sight:
    """`see_steps` of a family's model on one rank."""
    return see_steps(model_of(family, dtype), name, dtype, FEW if name == "chipmunk" else GRID)


def see_steps(model: nn.Module, name: str, dtype: torch.dtype, grid: Grid = GRID, group: Group | None = None) -> Sight:
    """The first steps of a recipe, and what is kept after them."""
    method, steps = shortened(name), []
    num_steps = method.schedule.num_steps(NUM_STEPS)
    with MODE, torch.no_grad(), Seen() as seen:
        engine = Engine(model, method, group)
        try:
            engine.begin(grid, [1 - step / num_steps for step in range(num_steps)])
            inputs = {key: each.to(dtype) for key, each in engine.adapter.example_inputs(16, CUDA).items()}
            patches = torch.empty(1, prod(grid), engine.adapter.patch_values, device=CUDA)
            patches = engine.group.shard(patches)
            of_text = [each for name, each in ANSWERS_OF_TEXT.items() if name in inputs]
            seen.answers = iter([*of_text, *ANSWERS.get(name, ()) * NUM_STEPS])
            for _ in range(num_steps):
                seen.forget()
                velocity = engine.forward(patches, return_dict=False, **inputs)[0]
                counts = {key: Counter(getattr(seen, key)) for key in ("reads", "copies", "float32", "on_host")}
                steps.append(SeenStep(dense=engine.dense[-1], output=devices_and_formats(velocity), **counts))
            assert engine.generation is not None
            return Sight(steps=steps, kept=devices_and_formats(engine.generation.state_dict()))
        finally:
            engine.detach()
