"""What Delta-DiT holds while it computes."""

import weakref

import torch

from caching.engine import Engine
from caching.recipe.recipe import RECIPES
from tests.caching.conftest import GRID
from tests.caching.test_engine import TIMES


def test_a_dense_step_of_delta_dit_holds_no_more_states_than_it_needs(transformer, sample, inputs, monkeypatch):
    """Those around a block, where the rear blocks begin and where the present third did: not one for each block."""
    engine = Engine(transformer, RECIPES["delta-dit"])
    engine.begin(GRID, TIMES)
    blocks, made, most = engine.adapter.block_list, [], 0
    engine.adapter.block_list = [blocks[0], *blocks[1:] * 10]  # two kinds of blocks, many of the second
    engine.begin(GRID, TIMES)
    run = engine.adapter.run

    def counted(index, state):
        nonlocal most
        after = run(index, state)
        made.append(weakref.ref(after))
        most = max(most, sum(each() is not None for each in made))
        return after

    monkeypatch.setattr(engine.adapter, "run", counted)
    with torch.no_grad():
        engine.forward(sample, **inputs)
    assert len(made) == 21 and most <= 4
