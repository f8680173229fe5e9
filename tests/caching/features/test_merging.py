"""Sparse steps that compute merged tokens: ToMeSD, AT-EDM and SDTM."""

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from caching.engine import Engine
from caching.features.merging import Match, keep_best, merge_most_alike
from caching.recipe.recipe import RECIPES, Recipe, Taylor, recipe
from caching.recipe.schedule import Interval
from caching.recipe.tokens import MergedTokens
from tests.caching.test_engine import NUM_TOKENS, TIMES, run

MERGING = sorted(name for name, method in RECIPES.items() if isinstance(method.tokens, MergedTokens))


def features(count, seed=0):
    return F.normalize(torch.randn(count, 8, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.mark.parametrize("keep", ["random", "attended", "both"])
def test_merging_nothing_is_the_model(transformer, sample, inputs, keep):
    full = Engine(transformer, recipe("full"))
    expected = run(full, sample, inputs)
    full.detach()
    method = Recipe(
        name="x", schedule=Interval(every=4), tokens=MergedTokens(ratio=0.0, keep=keep), predictor=Taylor(order=0)
    )
    for velocity, true in zip(run(Engine(transformer, method), sample, inputs), expected, strict=True):
        assert_close(velocity, true, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", MERGING)
def test_blocks_see_fewer_tokens_in_sparse_steps(transformer, sample, inputs, name):
    seen = []
    transformer.transformer_blocks[0].register_forward_hook(lambda _, given, out: seen.append(given[0].shape[1]))
    method = recipe(name, ratio=0.5)
    engine = Engine(transformer, Recipe(name=name, schedule=Interval(every=7), tokens=method.tokens))
    run(engine, sample, inputs, TIMES)
    assert seen[0] == NUM_TOKENS
    assert all(count < NUM_TOKENS for count in seen[1:])
    assert seen[1] == NUM_TOKENS / 2 or name == "sdtm"


def test_every_token_has_one_that_stands_for_it():
    for kept, place in (merge_most_alike(features(20), torch.rand(20), 9), keep_best(features(20), torch.rand(20), 9)):
        assert len(set(kept.tolist())) == len(kept) == 11
        assert place[kept].tolist() == list(range(11))
        assert Match(kept, place).sizes.sum() == 20


def test_equal_tokens_are_merged_first():
    """Two copies of each of ten features, one copy of each a destination or not: only copies may be merged."""
    twins = features(5).repeat(4, 1)
    kept, place = merge_most_alike(twins, torch.cat([torch.ones(5), torch.rand(15) / 2]), 15)
    assert sorted(kept.tolist()) == [0, 1, 2, 3, 4]
    assert_close(Match(kept, place).spread(twins[kept][None])[0], twins)


def test_a_merged_token_is_the_mean_of_those_that_it_stands_for():
    match = Match(torch.tensor([0, 2]), torch.tensor([0, 0, 1]))
    tokens = torch.tensor([[[1.0], [3.0], [5.0]]])
    assert match.merge(tokens).flatten().tolist() == [2.0, 5.0]
    assert match.pick(tokens).flatten().tolist() == [1.0, 5.0]
    assert match.spread(match.merge(tokens)).flatten().tolist() == [2.0, 2.0, 5.0]


def test_means_in_bfloat16_are_off_by_its_rounding_alone():
    place = torch.randint(5, (1000,), generator=torch.Generator().manual_seed(0))
    tokens = (4 + torch.randn(1, 1000, 8, generator=torch.Generator().manual_seed(1))).bfloat16()
    expected = torch.stack([tokens[0, place == group].double().mean(0) for group in range(5)])
    merged = Match(torch.arange(5), place).merge(tokens)
    assert merged.dtype == torch.bfloat16
    assert_close(merged[0].double(), expected, rtol=2**-7, atol=0.0)


def test_the_least_important_tokens_go():
    kept, _ = keep_best(features(6), torch.tensor([0.1, 0.9, 0.2, 0.8, 0.7, 0.3]), 3)
    assert kept.tolist() == [1, 3, 4]


def test_the_ratio_falls_with_decay(transformer, sample, inputs):
    seen = []
    transformer.transformer_blocks[0].register_forward_hook(lambda _, given, out: seen.append(given[0].shape[1]))
    tokens = MergedTokens(ratio=0.5, decay=1.0)
    run(Engine(transformer, Recipe(name="x", schedule=Interval(every=7), tokens=tokens)), sample, inputs, TIMES)
    assert seen[1:] == sorted(seen[1:])
    assert seen[1] < seen[-1] == NUM_TOKENS
