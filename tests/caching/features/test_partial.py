"""Sparse steps that compute some tokens: ToCa, DuCa and ClusCa."""

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

from caching.attention import Router
from caching.engine import Engine
from caching.features.selection import ClusterSelector, ScoreSelector
from caching.group import LocalGroup
from caching.recipe.recipe import Recipe, Taylor, recipe
from caching.recipe.schedule import Interval
from caching.recipe.tokens import ClusteredTokens, SelectedTokens
from caching.site import Site
from tests.caching.test_engine import NUM_TOKENS, TIMES, run

SCORES = ("random", "similarity", "key_norm", "value_norm", "attention")


def site(num_tokens=NUM_TOKENS):
    rotary = (torch.zeros(num_tokens, 2), torch.zeros(num_tokens, 2))
    return Site(group=LocalGroup(), router=Router(), num_tokens=num_tokens, num_steps=7, rotary=rotary)


def selector(**settings):
    """A selector that has seen one layer and features."""
    made = ScoreSelector(SelectedTokens(**settings), site())
    generator = torch.Generator().manual_seed(0)
    image, text = ([torch.randn(1, 2, count, 12, generator=generator) for _ in range(3)] for count in (NUM_TOKENS, 5))
    made.begin_dense()
    made.observe_layer(tuple(image), tuple(text))
    made.end_dense(torch.randn(1, NUM_TOKENS, 24, generator=generator))
    return made, image


@pytest.mark.parametrize(
    "tokens", [SelectedTokens(ratio=0.0), SelectedTokens(ratio=0.5), ClusteredTokens(clusters=NUM_TOKENS)]
)
def test_at_one_noise_level_computed_and_cached_tokens_repeat_the_dense_step(transformer, sample, inputs, tokens):
    method = Recipe(
        name="x", schedule=Interval(every=4), tokens=tokens, predictor=Taylor(order=0, axis="step"), feature="block"
    )
    engine = Engine(transformer, method)
    engine.begin((4, 4, 6), [0.7] * 4)
    with torch.no_grad():
        dense, *sparse = (engine.forward(sample, **inputs).sample for _ in range(4))
    for velocity in sparse:
        assert_close(velocity, dense, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("score", SCORES)
def test_a_tenth_of_each_shard_is_chosen(score):
    made, _ = selector(score=score, ratio=0.8)
    chosen = made.choose(1)
    assert len(set(chosen.tolist())) == len(chosen) == 8 * round(0.2 * NUM_TOKENS / 8)
    assert (chosen // (NUM_TOKENS // 8)).bincount().tolist() == [len(chosen) // 8] * 8


@pytest.mark.parametrize("score", SCORES[1:])
def test_the_highest_scores_are_not_the_lowest(score):
    highest, lowest = (
        set(selector(score=score, extreme=extreme, ratio=0.5)[0].choose(1).tolist()) for extreme in ("max", "min")
    )
    assert highest != lowest
    assert score == "similarity" or not highest & lowest


def test_norms_are_those_of_keys_and_values():
    for place, score in ((1, "key_norm"), (2, "value_norm")):
        made, image = selector(score=score, ratio=0.9)
        norms = image[place][0].norm(dim=-1).mean(0)
        for chosen in made.choose(1).view(8, -1):
            shard = chosen[0] // (NUM_TOKENS // 8) * (NUM_TOKENS // 8)
            assert norms[chosen[0]] == norms[shard : shard + NUM_TOKENS // 8].max()


def test_random_tokens_differ_from_step_to_step():
    made, _ = selector(ratio=0.8)
    assert made.choose(1).tolist() == made.choose(1).tolist() != made.choose(2).tolist()


def test_one_token_of_each_cluster_is_chosen():
    made = ClusterSelector(ClusteredTokens(clusters=16), site())
    made.end_dense(torch.randn(1, NUM_TOKENS, 24))
    assert made.cluster_of[made.choose(1)].tolist() == list(range(16))
    assert made.choose(1).tolist() != made.choose(2).tolist()


@pytest.mark.parametrize(("turns", "computed"), [("all", [1, 1, 1]), ("odd", [1, 0, 1]), ("even", [0, 1, 0])])
def test_turns_say_in_which_sparse_steps_blocks_run(transformer, sample, inputs, turns, computed):
    base = recipe("duca", interval=4)
    method = replace(base, schedule=Interval(every=4), tokens=SelectedTokens(turns=turns))
    block, calls = transformer.transformer_blocks[0], []
    block.register_forward_hook(lambda *_: calls.append(engine.step))
    engine = Engine(transformer, method)
    run(engine, sample, inputs, TIMES[:4])
    assert [calls.count(step) for step in (1, 2, 3, 4)] == [1, *computed]


def test_what_is_computed_brings_a_step_nearer_to_the_truth(transformer, sample, inputs):
    """Conservative steps beat reuse of the same cache, which computes nothing."""
    engine = Engine(transformer, recipe("full"))
    expected = run(engine, sample, inputs)[1]
    engine.detach()
    errors = []
    for ratio in (0.99, 0.5, 0.0):
        method = replace(recipe("toca", ratio=ratio), schedule=Interval(every=4))
        engine = Engine(transformer, method)
        errors.append((run(engine, sample, inputs)[1] - expected).norm())
        engine.detach()
    assert errors[0] > errors[1] > errors[2]


def test_delta_dit_computes_the_front_first_and_the_rear_later(transformer, sample, inputs):
    calls = []
    for place, block in enumerate([*transformer.transformer_blocks, *transformer.single_transformer_blocks]):
        block.register_forward_hook(lambda *_, place=place: calls.append((engine.step - 1, place)))
    engine = Engine(transformer, recipe("delta-dit"))
    run(engine, sample, inputs)
    of_step = [[place for step, place in calls if step == number] for number in range(len(TIMES))]
    assert of_step == [[0, 1, 2], [0], [0, 1, 2], [2], [0, 1, 2], [2], [0, 1, 2]]
