"""Latte through the same engine: attention in space and in time by turns, epsilon and a variance, the batch doubled."""

from collections import Counter
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from diffusers import LatteTransformer3DModel

from caching.engine import Engine
from caching.flops import count_flops, run_on_meta
from caching.group import Group
from caching.meta_counter import MetaCounter
from caching.recipe.recipe import RECIPES, recipe
from caching.recipe.schedule import Broadcast
from tests.caching.models.images import distance, short, with_weights

GRID, STEPS = (3, 4, 4), 9
LEVELS = [0.9 * (1 - step / STEPS) for step in range(STEPS)]
REFUSED = sorted(name for name, method in RECIPES.items() if method.tokens and method.tokens.attends_anew)
NAMES = sorted(set(RECIPES) - {"full", "steps", *REFUSED})


@pytest.fixture(scope="module")
def transformer() -> LatteTransformer3DModel:
    torch.manual_seed(0)
    return with_weights(
        LatteTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=4,
            out_channels=8,
            num_layers=2,
            cross_attention_dim=24,
            attention_bias=True,
            sample_size=8,
            patch_size=2,
            activation_fn="gelu-approximate",
            num_embeds_ada_norm=1000,
            norm_type="ada_norm_single",
            norm_elementwise_affine=False,
            caption_channels=16,
            video_length=3,
        )
    )


def sample(transformer) -> torch.Tensor:
    """Latents of a doubled batch, moved by Euler steps."""
    generator = torch.Generator().manual_seed(1)
    latents, texts = torch.randn(1, 4, 3, 8, 8, generator=generator), torch.randn(2, 5, 16, generator=generator)
    for level, following in zip(LEVELS, [*LEVELS[1:], 0.0], strict=True):
        given: dict[str, Any] = dict(encoder_hidden_states=texts, timestep=torch.tensor([1000 * level] * 2))
        with torch.no_grad():
            output = transformer(latents.repeat(2, 1, 1, 1, 1), enable_temporal_attentions=True, **given).sample
        uncond, cond = output[:, :4].chunk(2)
        latents = latents + (following - level) * (uncond + 1.5 * (cond - uncond))
    return latents


def cached(transformer, method) -> tuple[torch.Tensor, Engine]:
    engine = Engine(transformer, method)
    try:
        engine.begin(GRID, LEVELS, batched=2)
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
    assert distance(cached(transformer, short(name, 1))[0], full) < 1e-5
    latents, engine = cached(transformer, short(name, 3))
    assert 1e-6 < distance(latents, full) < 0.5
    assert engine.sparse_steps and torch.equal(sample(transformer), full)


def test_pab_computes_attention_in_space_in_time_and_to_the_text_each_at_its_own_steps(transformer):
    """Of two passes of a doubled batch; its blocks of space and of time are two each."""
    schedule = Broadcast(every=2, time=3, text=4)
    in_space, in_time = transformer.transformer_blocks, transformer.temporal_transformer_blocks
    kinds = {
        "space": [block.attn1 for block in in_space],
        "time": [block.attn1 for block in in_time],
        "text": [block.attn2 for block in in_space],
    }
    counts: Counter[str] = Counter()
    hooks = [
        module.to_q.register_forward_hook(lambda *_, kind=kind: counts.update([kind]))
        for kind, modules in kinds.items()
        for module in modules
    ]
    full = sample(transformer)
    assert set(counts.values()) == {2 * STEPS}  # of a batch that stays together
    counts.clear()
    latents, _ = cached(transformer, replace(RECIPES["pab"], schedule=schedule))
    for hook in hooks:
        hook.remove()
    assert counts == {"space": 2 * 2 * 5, "time": 2 * 2 * 3, "text": 2 * 2 * 3}
    assert 1e-6 < distance(latents, full) < 0.5


def test_pab_in_intervals_of_one_step_computes_everything(transformer):
    full = sample(transformer)
    assert distance(cached(transformer, recipe("pab", interval=1))[0], full) < 1e-5


def test_the_cost_of_steps_that_compute_other_kinds_of_attention_is_that_of_each(transformer):
    config: Any = {**transformer.config, "_class_name": "LatteTransformer3DModel"}
    method = replace(RECIPES["pab"], schedule=Broadcast(every=2, time=3, text=4))
    size: Any = {"grid": GRID, "num_text_tokens": 5, "num_steps": 26}
    with MetaCounter({}) as counter:
        run_on_meta(config, method, **size)
    assert count_flops(config, method, **size) == counter.flops


@pytest.mark.parametrize("name", REFUSED)
def test_what_attends_to_others_than_the_model_does_is_refused(transformer, name):
    expected = sample(transformer)
    with pytest.raises(ValueError, match=f"{name} needs a model in which each token attends to all others"):
        cached(transformer, RECIPES[name])
    assert torch.equal(sample(transformer), expected)


def test_other_numbers_of_frames_and_of_ranks_are_refused(transformer):
    engine = Engine(transformer, recipe("full"))
    with pytest.raises(ValueError, match="videos of 3 frames, not 5"):
        engine.begin((5, 4, 4), LEVELS)
    engine.detach()
    ranks = SimpleNamespace(sequence_size=2, sequence_rank=0, divide=lambda pieces: None)
    engine = Engine(transformer, recipe("full"), cast(Group, ranks))
    with pytest.raises(ValueError, match="works on one rank"):
        engine.begin(GRID, LEVELS)
    engine.detach()
