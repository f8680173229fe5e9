"""Wan through the same engine: a model whose tokens look at the text in modules of their own."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler, WanPipeline, WanTransformer3DModel
from torch.testing import assert_close

from caching.engine import Engine
from caching.flops import count
from caching.recipe.recipe import RECIPES, ProxyTaylor, Recipe, recipe
from caching.recipe.schedule import Interval, Places, Until
from caching.recipe.tokens import TrajectoryMedoids
from tests.caching.test_engine import with_interval

GRID = (3, 4, 6)
STEPS = 9
NAMES = sorted(set(RECIPES) - {"full"})
CONFIG = dict(
    patch_size=(1, 2, 2),
    num_attention_heads=2,
    attention_head_dim=12,
    in_channels=4,
    out_channels=4,
    text_dim=16,
    freq_dim=16,
    ffn_dim=32,
    num_layers=3,
)


def make_transformer(seed: int = 0) -> WanTransformer3DModel:
    torch.manual_seed(seed)
    transformer = WanTransformer3DModel(**CONFIG)  # type: ignore[arg-type]
    for parameter in transformer.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    return transformer.eval()


def make_pipeline(boundary_ratio: float | None = None, *, expand_timesteps: bool = False) -> WanPipeline:
    """With a boundary, of two models as Wan 2.2 is; with expanded timesteps, a level for each token (its TI2V)."""
    make: Any = WanPipeline  # its annotations want a text encoder, which a prompt that arrives encoded does not need
    made = make(
        tokenizer=None,
        text_encoder=None,
        vae=AutoencoderKLWan(base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
        scheduler=FlowMatchEulerDiscreteScheduler(),
        transformer=make_transformer(),
        transformer_2=make_transformer(1) if boundary_ratio else None,
        boundary_ratio=boundary_ratio,
        expand_timesteps=expand_timesteps,
    )
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture
def pipeline():
    return make_pipeline()


def generate(pipeline, **options):
    """Latents of 9 frames of 64 x 96 pixels, `GRID` tokens."""
    generator = torch.Generator().manual_seed(1)
    return pipeline(
        prompt_embeds=torch.randn(1, 5, 16, generator=generator),
        latents=torch.randn(1, 4, 3, 8, 12, generator=generator),
        height=64,
        width=96,
        num_frames=9,
        num_inference_steps=STEPS,
        guidance_scale=1.0,
        output_type="latent",
        **options,
    ).frames


def cached(pipeline, method, **options):
    engine = Engine(pipeline.transformer, method)
    engine.begin(GRID, [1 - step / STEPS for step in range(STEPS)])
    latents = generate(pipeline, **options)
    engine.detach()
    return latents


def short(name, every):
    """A recipe with a dense step in `every`; T-GATE goes by its gate."""
    if name == "t-gate":
        return replace(RECIPES[name], schedule=Until(part=1.0 if every == 1 else 0.4))
    return with_interval(name, every)


def test_dense_steps_are_the_model(pipeline):
    expected = generate(pipeline)
    assert_close(cached(pipeline, recipe("full")), expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(generate(pipeline), expected)


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_with_dense_steps_only_is_full_sampling(pipeline, name):
    assert torch.equal(cached(pipeline, short(name, 1)), cached(pipeline, recipe("full")))


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_comes_near_full_sampling(pipeline, name):
    full = generate(pipeline)
    error = (cached(pipeline, short(name, 3)) - full).norm() / full.norm()
    assert 1e-6 < error < 0.5


def test_a_pipeline_in_bfloat16_keeps_its_latents_in_float32(pipeline):
    latents = []
    pipeline.transformer.bfloat16()
    cached(pipeline, recipe("auto"), callback_on_step_end=lambda *given: latents.append(given[3]["latents"]) or {})
    assert [each.dtype for each in latents] == [torch.float32] * STEPS


def test_proxies_are_computed_in_every_sparse_step(pipeline):
    tokens = TrajectoryMedoids(clusters=8, every=1)
    sizes = []
    pipeline.transformer.blocks[0].register_forward_hook(lambda _, given, __: sizes.append(given[0].shape[1]))
    full = generate(pipeline)
    sizes.clear()
    latents = cached(pipeline, replace(RECIPES["resca"], schedule=Interval(every=3), tokens=tokens))
    assert sizes == [72, 72, 8, 8, 72, 8, 8]  # dense steps are 0, 3 and 6; proxies begin after the second
    assert 1e-6 < (latents - full).norm() / full.norm() < 0.5


@pytest.mark.parametrize("context", [72, 24])
def test_a_sparse_step_with_all_tokens_as_proxies_is_a_dense_step(pipeline, context):
    everyone = TrajectoryMedoids(clusters=72, shards=1, context=context, every=1)
    predictor = ProxyTaylor(order=0, gain=1.0)
    method = Recipe(name="resca", schedule=Places(dense=(0, 1)), tokens=everyone, predictor=predictor)
    engine = Engine(pipeline.transformer, method)
    engine.begin(GRID, [0.8, 0.7, 0.7])
    generator = torch.Generator().manual_seed(1)
    latents, text = torch.randn(1, 4, 3, 8, 12, generator=generator), torch.randn(1, 5, 16, generator=generator)
    given = {"timestep": torch.tensor([700.0]), "encoder_hidden_states": text}
    with torch.no_grad():
        _, dense, sparse = (engine.forward(latents, **given).sample for _ in range(3))
    assert_close(sparse, dense, rtol=1e-4, atol=1e-5)


def test_proxies_can_be_counted():
    config = {**CONFIG, "_class_name": "WanTransformer3DModel"}
    size: dict[str, Any] = dict(grid=GRID, num_text_tokens=5, num_steps=STEPS)
    few, many = (
        replace(RECIPES["resca"], schedule=Interval(every=3), tokens=TrajectoryMedoids(clusters=clusters, every=1))
        for clusters in (8, 16)
    )
    assert count(config, few, **size).flops < count(config, many, **size).flops


def test_t_gate_looks_at_the_text_until_the_gate(pipeline):
    steps, calls = [], []
    pipeline.transformer.blocks[0].attn1.register_forward_hook(lambda *_: steps.append(1))
    pipeline.transformer.blocks[0].attn2.to_q.register_forward_hook(lambda *_: calls.append(len(steps)))
    cached(pipeline, recipe("t-gate"))
    assert len(steps) == STEPS
    assert calls == [1, 2, 3, 4]  # 0.4 of 9 steps


def test_what_t_gate_saves_are_the_operations_of_cross_attention():
    config = {**CONFIG, "_class_name": "WanTransformer3DModel"}
    size: dict[str, Any] = dict(grid=GRID, num_text_tokens=5, num_steps=10)
    saved = count(config, recipe("full"), **size).flops - count(config, recipe("t-gate"), **size).flops
    width, tokens, text = 24, 72, 5
    cross_attention = 2 * (2 * tokens + 2 * text) * width**2 + 4 * tokens * text * width
    assert saved == 6 * CONFIG["num_layers"] * cross_attention


def test_after_the_gate_the_second_pass_of_guidance_is_saved_too():
    config = {**CONFIG, "_class_name": "WanTransformer3DModel"}
    size: dict[str, Any] = dict(grid=GRID, num_steps=10)
    second = count(config, recipe("full"), num_text_tokens=3, **size).flops
    alone, both = (count(config, recipe("t-gate"), num_text_tokens=lengths, **size) for lengths in (5, (5, 3)))
    assert both.flops == alone.flops + 4 / 10 * second
    assert (both.dense_steps, both.sparse_steps) == (4, 6)
    assert both.cache_bytes == alone.cache_bytes  # one mean


def test_models_that_are_not_text_to_video_are_refused():
    with pytest.raises(ValueError, match="image-conditioned"):
        Engine(WanTransformer3DModel(**{**CONFIG, "in_channels": 8}), recipe("full"))  # type: ignore[arg-type]
