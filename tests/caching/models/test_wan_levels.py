"""Wan 2.2 TI2V, which is told the noise level of each token."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from caching.engine import Engine
from caching.recipe.recipe import RECIPES, ProxyTaylor, Recipe
from caching.recipe.schedule import Places
from caching.recipe.tokens import MergedTokens, SelectedTokens, TrajectoryMedoids
from parallel.imagined import ImaginedGroup
from parallel.layout import Layout
from tests.caching.models.test_wan import GRID, NAMES, make_pipeline, make_transformer
from tests.caching.test_engine import with_interval
from tests.caching.test_guidance import cached, generate

TOKENS = 72


@pytest.fixture
def pipeline():
    return make_pipeline(expand_timesteps=True)


def given(level: float = 700.0) -> dict[str, torch.Tensor]:
    """A text, and levels of the tokens that are half as high or as high, in no order."""
    generator = torch.Generator().manual_seed(2)
    share = 0.5 + 0.5 * torch.rand(1, TOKENS, generator=generator)
    return {"timestep": level * share, "encoder_hidden_states": torch.randn(1, 5, 16, generator=generator)}


def latents() -> torch.Tensor:
    return torch.randn(1, 4, 3, 8, 12, generator=torch.Generator().manual_seed(1))


def test_full_is_the_pipeline_to_the_bit(pipeline):
    expected = generate(pipeline)
    found, _ = cached(pipeline, RECIPES["full"])
    assert torch.equal(found, expected)
    assert torch.equal(generate(pipeline), expected)
    assert not torch.equal(generate(make_pipeline()), expected)  # one level for all is rounded in another way


def test_a_dense_step_is_the_model_where_levels_differ():
    transformer, inputs = make_transformer(), given()
    engine = Engine(transformer, RECIPES["full"])
    engine.begin(GRID, [0.7, 0.0])
    with torch.no_grad():
        velocity = engine.forward(latents(), **inputs).sample
        engine.detach()
        expected = transformer(latents(), **inputs).sample
        other = transformer(latents(), **(inputs | {"timestep": inputs["timestep"].flip(1)})).sample
    assert torch.equal(velocity, expected)
    assert not torch.equal(expected, other)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"steps"}))
def test_every_recipe_detaches_and_takes_another_size(pipeline, name):
    expected = generate(pipeline)
    for grid in (GRID, (2, 3, 5)):
        found, _ = cached(pipeline, with_interval(name, 3) if name != "t-gate" else RECIPES[name], grid)
        assert found.isfinite().all()
    assert torch.equal(generate(pipeline), expected)


SOME = {  # recipes whose sparse step computes all tokens, one by one or in another order
    "proxies": Recipe(
        name="resca",
        schedule=Places(dense=(0, 1)),
        tokens=TrajectoryMedoids(clusters=TOKENS, shards=1, context=TOKENS, every=1),
        predictor=replace(ProxyTaylor(), order=0, gain=1.0),
    ),
    "selected": replace(RECIPES["toca"], schedule=Places(dense=(0, 1)), tokens=SelectedTokens(ratio=0.001, shards=1)),
    "merged": replace(RECIPES["tomesd"], schedule=Places(dense=(0, 1)), tokens=MergedTokens(ratio=0.001, shards=1)),
}


@pytest.mark.parametrize("name", SOME)
def test_tokens_that_are_computed_in_a_sparse_step_have_their_own_levels(name):
    engine = Engine(make_transformer(), SOME[name])
    engine.begin(GRID, [0.8, 0.7, 0.7])
    with torch.no_grad():
        _, dense, sparse = (engine.forward(latents(), **given()).sample for _ in range(3))
    assert engine.dense == [True, True, False]
    assert_close(sparse, dense, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["full", "resca", "duca", "tomesd", "taylorseer", "teacache"])
def test_a_rank_takes_the_levels_of_its_own_tokens(name):
    with torch.device("meta"):
        transformer = make_transformer()
    method = RECIPES["full"] if name == "full" else with_interval(name, 2)
    engine = Engine(transformer, method, ImaginedGroup(Layout(ulysses=2)))
    engine.begin(GRID, [0.9, 0.8, 0.7, 0.6])
    inputs = {key: value.to("meta") for key, value in given().items()}
    seen = []
    transformer.blocks[0].register_forward_hook(lambda _, states, __: seen.append((states[0].shape, states[2].shape)))
    with torch.no_grad():
        for _ in range(4):
            engine.forward(latents().to("meta"), **inputs)
    assert all(tokens[1] == levels[1] <= TOKENS // 2 for tokens, levels in seen)
    assert seen[0][0][1] == TOKENS // 2
