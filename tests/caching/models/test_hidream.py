"""HiDream through the same engine: three texts, one of them for each block, experts, and a negative velocity."""

from typing import Any

import pytest
import torch
from diffusers import HiDreamImageTransformer2DModel
from torch.testing import assert_close

from caching.engine import Engine
from caching.flops import count
from caching.recipe.recipe import RECIPES, ProxyTaylor, Recipe, recipe
from caching.recipe.schedule import Places
from caching.recipe.tokens import TrajectoryMedoids
from tests.caching.conftest import JOINT_RECIPES
from tests.caching.models.images import GRID, STEPS, distance, short, with_weights

NAMES = sorted(set(JOINT_RECIPES) - {"full", "steps"})
LEVELS = [1 - step / STEPS for step in range(STEPS)]
CONFIG: dict[str, Any] = dict(
    patch_size=2,
    in_channels=4,
    num_layers=1,
    num_single_layers=2,
    attention_head_dim=16,
    num_attention_heads=2,
    caption_channels=[8, 12],
    text_emb_dim=8,
    num_routed_experts=4,
    num_activated_experts=2,
    axes_dims_rope=(8, 4, 4),
    max_resolution=(16, 16),
    llama_layers=[0, 1, 1],
)


@pytest.fixture(scope="module")
def transformer() -> HiDreamImageTransformer2DModel:
    torch.manual_seed(0)
    return with_weights(HiDreamImageTransformer2DModel(**CONFIG))


def inputs_of(level: float) -> dict[str, torch.Tensor]:
    """Of a doubled batch."""
    generator = torch.Generator().manual_seed(1)
    shapes = {
        "encoder_hidden_states_t5": (2, 5, 8),
        "encoder_hidden_states_llama3": (2, 2, 5, 12),
        "pooled_embeds": (2, 8),
    }
    given = {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}
    return {"timesteps": torch.tensor([1000 * level] * 2), **given}


def sample(transformer) -> torch.Tensor:
    """Latents as the pipeline moves them, by the negative of what the model gives."""
    latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(2))
    for level, following in zip(LEVELS, [*LEVELS[1:], 0.0], strict=True):
        with torch.no_grad():
            output = transformer(latents.repeat(2, 1, 1, 1), **inputs_of(level), return_dict=False)[0]
        uncond, cond = (-output).chunk(2)
        latents = latents + (following - level) * (uncond + 1.5 * (cond - uncond))
    return latents


def cached(transformer, method: Recipe) -> tuple[torch.Tensor, Engine]:
    engine = Engine(transformer, method)
    engine.begin(GRID, LEVELS, batched=2)
    try:
        return sample(transformer), engine
    finally:
        engine.detach()


def test_full_is_the_bare_model_to_the_bit(transformer):
    expected = sample(transformer)
    latents, engine = cached(transformer, recipe("full"))
    assert torch.equal(latents, expected)
    assert engine.dense_steps == STEPS
    assert torch.equal(sample(transformer), expected)


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_is_full_sampling_with_dense_steps_only_and_else_comes_near_it(transformer, name):
    full = sample(transformer)
    assert distance(cached(transformer, short(name, 1))[0], full) < 1e-4
    latents, engine = cached(transformer, short(name, 3))
    assert 1e-6 < distance(latents, full) < 0.5
    assert engine.sparse_steps and torch.equal(sample(transformer), full)


@pytest.mark.parametrize("context", [64, 24])
def test_a_sparse_step_with_all_tokens_as_proxies_is_a_dense_step(transformer, context):
    everyone = TrajectoryMedoids(clusters=64, shards=1, context=context, every=1)
    predictor = ProxyTaylor(order=0, gain=1.0)
    method = Recipe(name="resca", schedule=Places(dense=(0, 1)), tokens=everyone, predictor=predictor)
    engine = Engine(transformer, method)
    engine.begin(GRID, [0.8, 0.7, 0.7], batched=2)
    latents = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        _, dense, sparse = (engine.forward(latents, **inputs_of(0.7)).sample for _ in range(3))
    engine.detach()
    assert_close(sparse, dense, rtol=1e-4, atol=1e-5)


def test_what_is_not_square_is_refused(transformer):
    engine = Engine(transformer, recipe("full"))
    with pytest.raises(ValueError, match="make square images"):
        engine.begin((1, 4, 8), LEVELS)
    engine.detach()


def test_experts_are_counted_as_if_each_had_as_many_tokens():
    config = {**CONFIG, "_class_name": "HiDreamImageTransformer2DModel"}
    size: dict[str, Any] = dict(grid=GRID, num_text_tokens=5, num_steps=1)
    one, two = (count({**config, "num_activated_experts": number}, RECIPES["full"], **size).flops for number in (1, 2))
    tokens, width, hidden = 64 + 2 * (64 + 15), 32, 256
    assert two - one == 2 * 3 * tokens * width * hidden
