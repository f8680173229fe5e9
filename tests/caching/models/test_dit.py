"""DiT through the same engine: a class in place of a text, epsilon and a variance, the batch doubled."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline, DiTTransformer2DModel
from torch.testing import assert_close

from caching.engine import Engine
from caching.models.levels import epsilon_of_velocity, levels_of_epsilon, velocity_of_epsilon
from caching.recipe.predictor import Chebyshev
from caching.recipe.recipe import RECIPES, ProxyTaylor, Recipe, Taylor, recipe
from caching.recipe.schedule import Places
from caching.recipe.tokens import TrajectoryMedoids
from tests.caching.conftest import JOINT_RECIPES
from tests.caching.models.images import GRID, STEPS, cached, distance, short, with_weights

NAMES = sorted(set(JOINT_RECIPES) - {"full", "steps"})
CONFIG = dict(
    num_attention_heads=2,
    attention_head_dim=12,
    in_channels=4,
    out_channels=8,
    num_layers=3,
    sample_size=16,
    patch_size=2,
    num_embeds_ada_norm=1000,
)


def make_transformer() -> DiTTransformer2DModel:
    torch.manual_seed(0)
    return with_weights(DiTTransformer2DModel(**CONFIG))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def pipeline():
    vae = AutoencoderKL(block_out_channels=(8,), norm_num_groups=4, latent_channels=4)
    made: Any = DiTPipeline(make_transformer(), vae, DDIMScheduler(clip_sample=False))  # type: ignore[arg-type]
    made.set_progress_bar_config(disable=True)
    return made


def generate(pipeline, scale=4.0):
    """The image `[1, H, W, 3]` of a class."""
    generator = torch.Generator().manual_seed(1)
    given: dict[str, Any] = dict(guidance_scale=scale, generator=generator, num_inference_steps=STEPS)
    return torch.from_numpy(pipeline([7], output_type="np", **given).images)


def test_full_is_the_pipeline_to_the_bit(pipeline):
    expected = generate(pipeline)
    images, engine = cached(pipeline, generate, recipe("full"))
    assert torch.equal(images, expected)
    assert engine.dense_steps == STEPS
    assert torch.equal(generate(pipeline), expected)


@pytest.mark.parametrize("size", [GRID, (1, 6, 10)])
def test_patches_are_the_latents(size):
    adapter = Engine(make_transformer(), recipe("full")).adapter
    latents = torch.randn(2, 4, 2 * size[1], 2 * size[2])
    assert adapter.grid(latents) == size
    assert torch.equal(adapter.fold(adapter.unfold(latents), size), latents)


def test_a_dense_step_is_the_model_and_its_passes_are_parts_of_the_batch():
    transformer, generator = make_transformer(), torch.Generator().manual_seed(1)
    given = dict(timestep=torch.tensor([700, 700]), class_labels=torch.tensor([7, 1000]))
    latents = torch.randn(2, 4, 16, 16, generator=generator)
    with torch.no_grad():
        expected = transformer(latents, **given).sample
        engine = Engine(transformer, short("taylorseer", 3))
        engine.begin(GRID, [1.0, 0.5], batched=2)
        assert_close(engine.forward(latents, **given).sample, expected)
    assert engine.generation is not None and list(engine.generation.passes) == ["sole 0", "sole 1"]


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_is_full_sampling_with_dense_steps_only_and_else_comes_near_it(pipeline, name):
    full = generate(pipeline)
    assert distance(cached(pipeline, generate, short(name, 1))[0], full) < 1e-5
    images, engine = cached(pipeline, generate, short(name, 3))
    assert 1e-6 < distance(images, full) < 0.5
    assert engine.sparse_steps and torch.equal(generate(pipeline), full)


def test_a_text_is_missed_by_name(pipeline):
    with pytest.raises(ValueError, match="t-gate needs a model with cross-attention"):
        cached(pipeline, generate, recipe("t-gate"))


def test_a_polynomial_in_noise_levels_is_not_asked_of_epsilon(pipeline):
    in_sigma = replace(RECIPES["spectrum"], predictor=Chebyshev(axis="sigma"))
    with pytest.raises(ValueError, match="chebyshev needs a model of a velocity on the axis sigma"):
        cached(pipeline, generate, in_sigma)


def test_ddim_moves_latents_by_the_velocity_of_epsilon_times_the_change_of_sigma(pipeline):
    """Which makes what was made for velocities in sigma exact for epsilon too."""
    scheduler = pipeline.scheduler
    scheduler.set_timesteps(STEPS)
    kept = scheduler.alphas_cumprod[scheduler.timesteps]
    sigmas = levels_of_epsilon(kept)
    total = kept.sqrt() + (1 - kept).sqrt()
    latents, epsilon = torch.randn(2, 1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    for step, timestep in enumerate(scheduler.timesteps[:-1]):
        moved = scheduler.step(epsilon, timestep, latents).prev_sample
        velocity = velocity_of_epsilon(epsilon, latents, sigmas[step])
        by_sigma = latents / total[step] + (sigmas[step + 1] - sigmas[step]) * velocity
        assert_close(moved / total[step + 1], by_sigma, rtol=1e-4, atol=1e-4)
        assert_close(epsilon_of_velocity(velocity, latents, sigmas[step]), epsilon, rtol=1e-4, atol=1e-4)


def test_a_reused_velocity_says_another_epsilon_of_other_latents_and_no_other_variance():
    """That of the same x0 - epsilon: what was learnt of the variance stays."""
    reuse = Recipe(name="reuse", schedule=Places(dense=(0,)), predictor=Taylor(order=0))
    engine = Engine(make_transformer(), reuse)
    engine.begin(GRID, [0.8, 0.6])
    first, second = torch.randn(2, 1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        given = {"timestep": torch.tensor([700]), "class_labels": torch.tensor([7])}
        dense = engine.forward(first, **given).sample
        sparse = engine.forward(second, **given).sample
    velocities = [
        velocity_of_epsilon(said[:, :4], latents, sigma)
        for said, latents, sigma in ((dense, first, 0.8), (sparse, second, 0.6))
    ]
    assert engine.dense == [True, False]
    assert_close(*velocities, rtol=1e-4, atol=1e-4)
    assert torch.equal(sparse[:, 4:], dense[:, 4:])


@pytest.mark.parametrize("context", [64, 24])
def test_a_sparse_step_with_all_tokens_as_proxies_is_a_dense_step(context):
    everyone = TrajectoryMedoids(clusters=64, shards=1, context=context, every=1)
    method = Recipe(
        name="resca", schedule=Places(dense=(0, 1)), tokens=everyone, predictor=ProxyTaylor(order=0, gain=1.0)
    )
    engine = Engine(make_transformer(), method)
    engine.begin(GRID, [0.8, 0.7, 0.7])
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        given = {"timestep": torch.tensor([700]), "class_labels": torch.tensor([7])}
        _, dense, sparse = (engine.forward(latents, **given).sample for _ in range(3))
    assert_close(sparse, dense, rtol=1e-4, atol=1e-5)
