"""The same latents on any number of ranks, of families that the commands do not render with."""

from collections.abc import Callable

import pytest
import torch
from diffusers import ModelMixin
from torch import Tensor

from caching.engine import Engine
from caching.group import Group
from caching.recipe.recipe import RECIPES
from parallel.layout import Layout
from tests.caching.models import test_hunyuan_video_15 as hunyuan_video_15
from tests.caching.models import test_wan as wan
from tests.caching.test_engine import with_interval
from tests.parallel.gang import Gang

NAMES = ["full", "resca", "taylorseer", "toca", "tomesd"]
STEPS = 8
LEVELS = [1 - step / STEPS for step in range(STEPS)]
GRID = (3, 3, 5)  # 45 tokens: ranks differ in how many are theirs
Passes = Callable[[float], dict[str, dict[str, Tensor]]]


def levels_by_token(level: float) -> dict[str, dict[str, Tensor]]:
    """The inputs of two passes of Wan, the first frame at half the noise level of the others."""
    generator = torch.Generator().manual_seed(2)
    text = torch.randn(2, 1, 5, 16, generator=generator)
    timestep = torch.full((1, 45), 1000 * level)
    timestep[:, :15] /= 2
    return {name: {"timestep": timestep, "encoder_hidden_states": text[place]} for place, name in enumerate("cu")}


def three_texts(level: float) -> dict[str, dict[str, Tensor]]:
    """The inputs of two passes of HunyuanVideo 1.5."""
    return {
        "pred_cond": hunyuan_video_15.inputs_of(level, prompt=5, glyphs=2),
        "pred_uncond": hunyuan_video_15.inputs_of(level, prompt=3),
    }


def sample(transformer: ModelMixin, group: Group | None, name: str, passes: Passes, start: Tensor) -> Tensor:
    """Guided latents, with zeros in the channels beside them."""
    engine = Engine(transformer, RECIPES[name] if name == "full" else with_interval(name, 3), group)
    engine.begin(GRID, LEVELS)
    latents, zeros = start, torch.zeros(1, transformer.config.in_channels - 4, *start.shape[2:])
    for level, following in zip(LEVELS, [*LEVELS[1:], 0.0], strict=True):
        found = []
        for pass_name, inputs in passes(level).items():
            with engine.of_pass(pass_name), torch.no_grad():
                found.append(engine.forward(torch.cat([latents, zeros], dim=1), **inputs).sample)
        latents = latents + (following - level) * (found[1] + 5 * (found[0] - found[1]))
    engine.detach()
    return latents


def sample_all(group: Group | None) -> dict[str, Tensor]:
    """Of each family and method."""
    start = torch.randn(1, 4, 3, 6, 10, generator=torch.Generator().manual_seed(1))
    found = {}
    for name in NAMES:
        found[f"wan {name}"] = sample(wan.make_transformer(), group, name, levels_by_token, start)
        transformer = hunyuan_video_15.make_transformer()
        found[f"1.5 {name}"] = sample(transformer, group, name, three_texts, start[:, :, :, :3, :5])
    return found


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("layout", [Layout(ulysses=2), Layout(ring=2)], ids=["2x1", "1x2"])
def test_ranks_sample_the_latents_of_one_process(layout, tmp_path):
    expected = sample_all(None)
    with Gang(layout, tmp_path) as gang:
        for found in gang.run(sample_all):
            for name, latents in expected.items():
                assert (found[name] - latents).abs().max() <= 1e-4 * latents.abs().max(), name
