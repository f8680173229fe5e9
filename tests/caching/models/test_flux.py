"""FLUX through the same engine: what is not HunyuanVideo's alone."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

from caching.engine import Engine
from caching.flops import count_flops
from caching.recipe.clock import NO_SIGNALS
from caching.recipe.recipe import recipe
from caching.recipe.schedule import Interval, Places
from caching.recipe.tokens import SelectedTokens
from tests.caching.conftest import JOINT_RECIPES
from tests.caching.test_engine import with_interval

FLUX_DEV = {"_class_name": "FluxTransformer2DModel", "guidance_embeds": True}
FLUX_GRID = (1, 64, 64)  # 1024 x 1024
TFLOP = 1e12
STEPS = 9


@pytest.fixture
def pipeline():
    torch.manual_seed(0)
    transformer = FluxTransformer2DModel(
        in_channels=16,
        num_layers=1,
        num_single_layers=2,
        attention_head_dim=12,
        num_attention_heads=2,
        joint_attention_dim=16,
        pooled_projection_dim=8,
        axes_dims_rope=(4, 4, 4),
    )
    for parameter in transformer.parameters():
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.15)
    make: Any = FluxPipeline  # its annotations want text encoders, which prompts that arrive encoded do not need
    made = make(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=None,
        tokenizer_2=None,
        transformer=transformer.eval(),
    )
    made.set_progress_bar_config(disable=True)
    return made


def generate(pipeline, **options):
    """Packed latents of a 16 x 24 image, 96 tokens."""
    generator, dtype = torch.Generator().manual_seed(1), pipeline.transformer.dtype
    return pipeline(
        prompt_embeds=torch.randn(1, 5, 16, generator=generator).to(dtype),
        pooled_prompt_embeds=torch.randn(1, 8, generator=generator).to(dtype),
        latents=torch.randn(1, 96, 16, generator=generator),
        height=16,
        width=24,
        num_inference_steps=STEPS,
        output_type="latent",
        **options,
    ).images


def cached(pipeline, method, **options):
    engine = Engine(pipeline.transformer, method)
    engine.begin((1, 8, 12), [1 - step / STEPS for step in range(STEPS)])
    latents = generate(pipeline, **options)
    engine.detach()
    return latents


def test_dense_steps_are_the_model(pipeline):
    assert torch.equal(cached(pipeline, recipe("full")), generate(pipeline))


@pytest.mark.parametrize("name", sorted(set(JOINT_RECIPES) - {"full"}))
def test_every_recipe_with_interval_1_is_full_sampling(pipeline, name):
    assert torch.equal(cached(pipeline, with_interval(name, 1)), cached(pipeline, recipe("full")))


@pytest.mark.parametrize("name", sorted(set(JOINT_RECIPES) - {"full"}))
def test_every_recipe_comes_near_full_sampling(pipeline, name):
    full = generate(pipeline)
    error = (cached(pipeline, with_interval(name, 3)) - full).norm() / full.norm()
    assert 1e-5 < error < 0.5


def test_a_pipeline_in_bfloat16_keeps_its_latents_in_float32(pipeline):
    latents = []
    pipeline.transformer.bfloat16()
    cached(pipeline, recipe("auto"), callback_on_step_end=lambda *given: latents.append(given[3]["latents"]) or {})
    assert [each.dtype for each in latents] == [torch.float32] * STEPS


def test_noise_levels_that_bfloat16_cannot_tell_apart_are_told_apart(pipeline):
    levels = torch.tensor([0.9971, 0.9961])
    assert levels[0].bfloat16() == levels[1].bfloat16()
    engine = Engine(pipeline.transformer.bfloat16(), recipe("full"))
    engine.begin((1, 8, 12), levels.tolist())
    generator = torch.Generator().manual_seed(1)
    shapes = {"encoder_hidden_states": (1, 5, 16), "pooled_projections": (1, 8)}
    inputs = {name: torch.randn(shape, generator=generator).bfloat16() for name, shape in shapes.items()}
    patches = torch.randn(1, 96, 16, generator=generator)
    with torch.no_grad():
        first, second = (engine.forward(patches, timestep=level[None], **inputs).sample for level in levels)
    assert not torch.equal(first, second)


def test_patches_are_packed_as_the_pipeline_packs_them(pipeline):
    adapter = Engine(pipeline.transformer, recipe("full")).adapter
    latents = torch.randn(1, 4, 6, 8)
    patches = adapter.unfold(latents)
    assert torch.equal(patches, pipeline._pack_latents(latents, 1, 4, 6, 8))
    assert torch.equal(adapter.fold(patches, adapter.grid(latents)), latents)


def test_full_sampling_of_flux_is_the_papers_figure():
    step = count_flops(FLUX_DEV, recipe("full"), grid=FLUX_GRID, num_text_tokens=512, num_steps=1)
    assert 50 * step == pytest.approx(3_719.50 * TFLOP, rel=1e-3)


@pytest.mark.slow
def test_resca_on_flux_is_within_the_papers_budget():
    """N=7, O=1, K=16 costs 675.1 TFLOPs in the paper: 8 dense steps of 50."""
    base = recipe("resca", clusters=16)
    assert base.tokens is not None
    method = replace(base, schedule=Places(dense=(0, 1)), tokens=replace(base.tokens, every=1))
    one = count_flops(FLUX_DEV, recipe("full"), grid=FLUX_GRID, num_text_tokens=512, num_steps=1)
    sparse = count_flops(FLUX_DEV, method, grid=FLUX_GRID, num_text_tokens=512, num_steps=3) - 2 * one
    assert sparse > 0.1 * TFLOP
    assert 8 * one + 42 * sparse <= 675.1 * TFLOP


def sparse_cost(method, num_steps):
    """TFLOPs of a dense step, and those that all sparse steps of a stage of `num_steps` add to it."""
    short = replace(method, schedule=Interval(every=num_steps))
    one, stage = (
        count_flops(FLUX_DEV, short, grid=FLUX_GRID, num_text_tokens=512, num_steps=steps) for steps in (1, num_steps)
    )
    return one / TFLOP, (stage - one) / TFLOP


def dense_steps(method):
    clock = method.schedule.start(50)
    return sum(clock.is_dense(step, NO_SIGNALS) for step in range(50))


@pytest.mark.slow
def test_duca_and_toca_on_flux_cost_what_was_published():
    """The published figures are those of 4 dense steps at the start and the aggressive step first (N = 4, 5, 6).

    ToCa's figure is that of an interval of 5 after 3 dense steps.
    """
    duca = recipe("duca")
    dense, partial = sparse_cost(replace(duca, tokens=SelectedTokens(turns="all")), 2)
    _, reuse = sparse_cost(replace(duca, tokens=SelectedTokens(turns="even")), 2)
    assert reuse < 0.03 < 4 < partial < 7
    for interval, figure, num_partial in ((4, 1190.24, 12), (5, 1078.34, 18), (6, 917.32, 16)):
        computed = dense_steps(recipe("duca", interval=interval))
        total = computed * dense + num_partial * partial + (50 - computed - num_partial) * reuse
        assert total == pytest.approx(figure, rel=0.03)
    computed = dense_steps(recipe("toca"))
    assert computed * dense + (50 - computed) * partial == pytest.approx(1126.76, rel=0.03)


@pytest.mark.slow
def test_delta_dit_on_flux_costs_what_was_published():
    """2,480.01 TFLOPs at N = 2; the figure given for N = 3 is that of 9 dense steps, an interval of 6."""
    dense, sparse = sparse_cost(recipe("delta-dit"), 2)
    for interval, figure in ((2, 2480.01), (6, 1686.76)):
        computed = dense_steps(recipe("delta-dit", interval=interval))
        assert computed * dense + (50 - computed) * sparse == pytest.approx(figure, rel=0.003)
