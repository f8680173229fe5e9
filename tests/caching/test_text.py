"""Padded text tokens are dropped."""

import pytest
import torch

from caching import text
from caching.engine import Engine
from caching.recipe.recipe import recipe
from caching.text import count_text
from tests.caching.conftest import GRID
from tests.caching.test_engine import TIMES, run


def test_text_is_counted_once_for_each_mask(transformer, sample, inputs, monkeypatch):
    masks = []
    monkeypatch.setattr(text, "count_text", lambda mask, least: masks.append(mask) or count_text(mask, least))
    engine = Engine(transformer, recipe("full"))
    run(engine, sample, inputs)
    assert len(masks) == 1
    engine.begin(GRID, TIMES)
    shorter = {**inputs, "encoder_attention_mask": (torch.arange(9) < 3)[None].float()}
    with torch.no_grad():
        velocity = engine.forward(sample, **shorter).sample
        assert len(masks) == 2
        cut = {name: value[:, :3] if name.startswith("encoder") else value for name, value in shorter.items()}
        assert torch.equal(engine.forward(sample, **cut).sample, velocity)


def test_more_text_is_counted_than_bfloat16_can():
    assert [count_text(torch.ones(1, length).bfloat16()) for length in (255, 257, 771)] == [255, 257, 771]


def test_a_token_stays_of_a_prompt_without_any():
    assert count_text(torch.zeros(2, 4)) == 1
    assert count_text(torch.zeros(2, 4), least=0) == 0


def test_prompts_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="same number of tokens"):
        count_text(torch.tensor([[1, 1], [1, 0]]))
