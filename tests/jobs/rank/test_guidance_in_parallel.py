"""Guidance in parallel: real gloo ranks and the real xfuser code sample what one process samples."""

from dataclasses import replace
from functools import cache

import pytest
import torch

from caching.engine import Engine, column
from caching.recipe.by_values import OutputChange
from caching.recipe.recipe import RECIPES, recipe
from parallel.layout import Layout
from tests.caching.models.test_wan import GRID, make_pipeline
from tests.caching.test_engine import with_interval
from tests.caching.test_guidance import STEPS, cached
from tests.parallel.gang import Gang

METHODS = {
    "full": RECIPES["full"],
    "auto": recipe("auto", interval=3),
    "teacache": RECIPES["teacache"],
    "easycache": replace(RECIPES["easycache"], schedule=OutputChange(first=2)),
    "taylorseer": with_interval("taylorseer", 3),
    "resca": recipe("resca", interval=4, clusters=16),
    "toca": with_interval("toca", 3),
    "t-gate": RECIPES["t-gate"],
}


def sample(group, name, scale=5.0):
    """Guided latents with a method, what was sent for it, and which steps were dense."""
    pipeline = make_pipeline()
    generator = torch.Generator().manual_seed(1)
    prompt, negative = (torch.randn(1, length, 16, generator=generator) for length in (5, 3))
    noise = torch.randn(1, 4, 3, 8, 12, generator=generator)
    engine = Engine(pipeline.transformer, METHODS[name], group)
    pipeline.scheduler.set_timesteps(STEPS)
    engine.begin(GRID, pipeline.scheduler.sigmas[:-1].tolist())
    group.counter.clear()
    own = pipeline(
        prompt_embeds=prompt,
        negative_prompt_embeds=negative,
        latents=column(engine.adapter, group.shard(engine.adapter.unfold(noise))),
        height=64,
        width=96,
        num_frames=9,
        num_inference_steps=STEPS,
        guidance_scale=scale,
        output_type="latent",
        return_dict=False,
    )[0]
    sent = {row["step"]: row for row in group.counter.rows()}
    engine.detach()
    return engine.adapter.fold(group.gather(engine.adapter.unfold(own)), GRID), sent, engine.dense


@cache
def of_one_process(name):
    latents, engine = cached(make_pipeline(), METHODS[name])
    return latents, engine.dense


def refusal(group):
    """What is said where a step has one pass."""
    with pytest.raises(RuntimeError) as error:
        sample(group, "full", scale=1.0)
    return str(error.value)


LAYOUTS = [
    Layout(cfg=2),
    *(pytest.param(each, marks=pytest.mark.slow) for each in (Layout(cfg=2, ulysses=2), Layout(cfg=2, ring=2))),
]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("layout", LAYOUTS, ids=["alone", "ulysses", "ring"])
def test_each_half_computes_a_pass_and_hears_of_the_other_once_a_step(tmp_path, layout):
    with Gang(layout, tmp_path) as gang:
        for name in METHODS:
            expected, dense = of_one_process(name)
            for latents, sent, decided in gang.run(sample, name):
                assert decided == dense, name
                torch.testing.assert_close(latents, expected, atol=1e-4, rtol=1e-4, msg=name)
                if layout.sequence_size == 1:
                    assert sent["dense"]["calls"] == sum(dense)
                    assert sent["dense"]["bytes_sent"] == sum(dense) * 4 * 72 * 16  # velocities of all tokens
                if name == "auto":
                    assert sent["sparse"]["calls"] == 0
                if name == "t-gate" and layout.sequence_size == 1:  # once, the cross-attention of 3 blocks
                    assert (sent["sparse"]["calls"], sent["sparse"]["bytes_sent"]) == (3, 3 * 4 * 72 * 24)
        if layout.sequence_size == 1:
            assert set(gang.run(refusal)) == {"guidance in parallel needs 2 passes in each step"}
