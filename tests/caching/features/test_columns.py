"""Sparse steps that compute the heaviest columns (Chipmunk)."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F
from torch.testing import assert_close

from caching.engine import Engine
from caching.features.columns import Chunks, Up, held_at_once
from caching.flops import count_flops
from caching.recipe.recipe import Recipe, Taylor, recipe
from caching.recipe.schedule import Interval
from caching.recipe.tokens import SparseColumns
from tests.caching.test_engine import run


def states(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, 2, count, 6, generator=generator) for count in (5, 12, 12)]


@pytest.mark.parametrize("count", [1, 6, 12])
@pytest.mark.parametrize("length", [2, 5, 8])
def test_unchanged_inputs_give_full_attention(count, length):
    """Five queries in chunks of 2, 2 and 1, all in one, or in one that is not full."""
    chunk = Chunks.split(*states(0), length, count)
    assert_close(chunk.attend(*states(0)), F.scaled_dot_product_attention(*states(0)))


def test_all_columns_are_full_attention_whatever_changes():
    chunk = Chunks.split(*states(0), 2, 12)
    assert_close(chunk.attend(*states(1)), F.scaled_dot_product_attention(*states(1)))


def test_the_heaviest_keys_are_chosen():
    query, key, value = states(0)
    weights = (query @ key.transpose(2, 3) / 6**0.5).softmax(-1)
    chosen = Chunks.split(query, key, value, 2, 3).columns
    for chunk, queries in enumerate(weights.split(2, dim=2)):
        assert torch.equal(chosen[:, :, chunk], queries.sum(2).topk(3).indices)


def test_half_precision_costs_attention_no_more_than_its_inputs():
    """Keys in 32 groups and norms as of a real model: logits of up to 18, which bfloat16 knows to 0.06."""
    generator = torch.Generator().manual_seed(0)
    query, key, value = (torch.randn(1, 2, count, 128, generator=generator) for count in (192, 1024, 1024))
    centres = torch.randn(1, 2, 32, 128, generator=generator)
    query, key = (states + centres.repeat(1, 1, states.shape[2] // 32, 1) for states in (query, key))
    query, key = (1.5 * 128**0.5 * F.normalize(states, dim=-1) for states in (query, key))
    half = [states.bfloat16() for states in (query, key, value)]
    expected = F.scaled_dot_product_attention(*(states.float() for states in half))
    output = Chunks.split(*half, 192, 200).attend(*half)
    assert output.dtype == torch.bfloat16
    assert (output.float() - expected).norm() / expected.norm() < 0.006


def test_neurons_are_chosen_by_sums_that_float16_cannot_hold():
    layer = torch.nn.Linear(3, 3, bias=False).half()
    layer.weight.data = torch.tensor([30.0, 50.0, 40.0]).diag().half()
    hook = Up(SimpleNamespace(computes=True, keep=True), 2)  # type: ignore[arg-type]
    hook.answer(layer.forward, layer, torch.ones(1, 4000, 3).half())
    assert hook.columns is not None and hook.columns.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("most", "heads", "chunks"), [(1, 1, 1), (4040, 1, 1), (8079, 1, 1), (8080, 2, 1), (16160, 2, 2), (2**26, 2, 8305)]
)
def test_no_more_logits_are_held_than_a_fixed_bound_allows(monkeypatch, most, heads, chunks):
    """Of 2 heads, 101 keys and chunks of 40 queries; one chunk of one head is the least."""
    monkeypatch.setattr("caching.features.columns.MAX_LOGITS", most)
    assert held_at_once(2, 101, 40) == (heads, 40 * chunks)


@pytest.mark.parametrize("most", [1, 9000])
def test_spans_do_not_matter(transformer, sample, inputs, monkeypatch, most):
    method = Recipe(name="x", schedule=Interval(every=4), tokens=SparseColumns(chunk=40), predictor=Taylor(order=0))
    whole = Engine(transformer, method)
    expected = run(whole, sample, inputs)
    whole.detach()
    monkeypatch.setattr("caching.features.columns.MAX_LOGITS", most)
    for velocity, true in zip(run(Engine(transformer, method), sample, inputs), expected, strict=True):
        assert_close(velocity, true)


def test_all_columns_are_the_model(transformer, sample, inputs):
    full = Engine(transformer, recipe("full"))
    expected = run(full, sample, inputs)
    full.detach()
    tokens = SparseColumns(ratio=0.0, chunk=40)
    method = Recipe(name="x", schedule=Interval(every=4), tokens=tokens, predictor=Taylor(order=0))
    for velocity, true in zip(run(Engine(transformer, method), sample, inputs), expected, strict=True):
        assert_close(velocity, true, rtol=1e-3, atol=1e-4)


def test_more_columns_come_nearer_to_the_model(transformer, sample, inputs):
    full = Engine(transformer, recipe("full"))
    expected = run(full, sample, inputs)[1]
    full.detach()
    errors = []
    for ratio in (0.95, 0.5, 0.1):
        engine = Engine(transformer, recipe("chipmunk", ratio=ratio, interval=4))
        errors.append((run(engine, sample, inputs)[1] - expected).norm())
        engine.detach()
    assert errors[0] > errors[1] > errors[2]


def test_a_sparse_step_saves_what_it_does_not_compute():
    config = {"_class_name": "HunyuanVideoTransformer3DModel", "num_layers": 1, "num_single_layers": 1}
    size = dict(grid=(4, 16, 16), num_text_tokens=16)
    one = count_flops(config, recipe("full"), num_steps=1, **size)
    sparse = {
        ratio: count_flops(config, recipe("chipmunk", ratio=ratio), num_steps=3, **size)
        - count_flops(config, recipe("chipmunk", ratio=ratio), num_steps=2, **size)
        for ratio in (0.8, 0.4)
    }
    assert sparse[0.8] < sparse[0.4] < one
    assert sparse[0.8] < 0.6 * one
