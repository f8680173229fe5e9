"""Few blocks that stand for many where costs are counted."""

from typing import Any

import pytest

from caching.depth import shallow
from caching.flops import Cost, MetaLoop, count, flops_by_groups
from caching.recipe.recipe import RECIPES, Recipe
from tests.caching.conftest import SMALL_RECIPES
from tests.caching.models.test_dit import CONFIG as CONFIG_OF_DIT
from tests.caching.models.test_hidream import CONFIG as CONFIG_OF_HIDREAM

GRID, STEPS = (1, 8, 8), 9
MODELS: dict[str, dict[str, Any]] = {
    "dit": {**CONFIG_OF_DIT, "_class_name": "DiTTransformer2DModel", "num_layers": 4},
    "hidream": {
        **CONFIG_OF_HIDREAM,
        "_class_name": "HiDreamImageTransformer2DModel",
        "num_layers": 2,
        "num_single_layers": 3,
        "llama_layers": [0, 1, 1, 1, 1],
    },
}


def cost_of_all_blocks(config: dict[str, Any], method: Recipe, lengths: tuple[int, ...]) -> Cost:
    loop = MetaLoop(config, method, grid=GRID, num_text_tokens=lengths, num_steps=STEPS)
    flops, dense = flops_by_groups(loop, until_cache_is_full=True), len(loop.dense_steps)
    return Cost(
        flops=flops,
        cache_bytes=loop.engine.peak_cache_bytes,
        dense_steps=dense,
        sparse_steps=loop.num_steps - dense,
    )


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("dit", "toca"),
        ("hidream", "fora"),
        *(
            pytest.param(model, name, marks=pytest.mark.slow)
            for model in MODELS
            for name in RECIPES
            if not RECIPES[name].needs_cross_attention
        ),
    ],
)
def test_few_blocks_cost_what_all_would_and_equal_passes_what_each_would(model, name):
    config, method, lengths = MODELS[model], SMALL_RECIPES[name], (5, 5)
    counted = count(config, method, grid=GRID, num_text_tokens=lengths, num_steps=STEPS)
    assert counted == cost_of_all_blocks(config, method, lengths)


def test_one_model_of_one_block_of_each_kind_and_one_more_for_each_kind():
    whole = shallow(MODELS["hidream"], RECIPES["fora"])
    assert [(times, each["num_layers"], each["num_single_layers"]) for times, each in whole] == [
        (-2, 1, 1),
        (1, 2, 1),
        (2, 1, 2),
    ]
    assert shallow({"_class_name": "DiTTransformer2DModel"}, RECIPES["fora"])[1][0] == 27  # the default of its class


def test_delta_dit_parts_the_blocks_and_so_has_as_many_as_are_parted_alike():
    method, dit = RECIPES["delta-dit"], MODELS["dit"]
    assert shallow(dit, method) == [(1, dit)]
    depths = [(times, each["num_layers"]) for times, each in shallow({**dit, "num_layers": 12}, method)]
    assert depths == [(-2, 3), (3, 6)]
    flux = shallow({"_class_name": "FluxTransformer2DModel"}, method)
    assert [(times, each["num_layers"], each["num_single_layers"]) for times, each in flux] == [(-17, 1, 2), (18, 2, 4)]


def test_what_delta_dit_costs_on_few_blocks_is_what_it_costs_on_all():
    config, method = {**MODELS["dit"], "num_layers": 12}, RECIPES["delta-dit"]
    counted = count(config, method, grid=GRID, num_text_tokens=(5, 5), num_steps=STEPS)
    assert counted == cost_of_all_blocks(config, method, (5, 5))
