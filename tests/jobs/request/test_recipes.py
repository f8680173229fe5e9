"""Recipes in files."""

import json

import pytest
import yaml

from caching.recipe.recipe import RECIPES, Multistep, recipe
from caching.recipe.schedule import Places
from jobs.errors import BadInput
from jobs.options.shared import MethodOptions
from jobs.request.prompts import Item
from jobs.request.recipes import methods_of, read_recipe, resolve_method


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_what_a_recipe_says_of_itself_can_be_read_back(tmp_path, name):
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(RECIPES[name].describe()))
    assert read_recipe(file) == RECIPES[name]


def test_a_method_for_cross_attention_is_refused_where_there_is_none():
    with pytest.raises(BadInput, match="t-gate caches cross-attention"):
        resolve_method("t-gate", MethodOptions())
    assert resolve_method("t-gate", MethodOptions(), cross_attention=True) == RECIPES["t-gate"]


def test_axes_are_combined_freely(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("""
name: mine
schedule: {kind: places, dense: [0, 4, 9], steps: 12}
predictor: {kind: taylor, order: 2, axis: step}
feature: stack
""")
    mine = resolve_method(str(file), MethodOptions())
    assert mine.schedule == Places(dense=(0, 4, 9), steps=12)
    assert (mine.predictor.order, mine.predictor.axis, mine.feature) == (2, "step", "stack")


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"name": "x", "feature": "neurons"}, "feature"),
        ({"name": "x", "speed": 11}, "speed"),
        ({"name": "x", "predictor": {"order": 9}}, "order must be between 0 and 4, not 9"),
        ({"name": "x", "schedule": {"kind": "places"}}, "schedule"),
        ({"name": "x", "tokens": {"clusters": 16}}, "belong together"),
        ({"name": "x", "feature": "mean_cross_attention"}, "reused as it is: order 0"),
        ({"name": "x", "feature": "block", "predictor": {"correction": 0.5}}, "only the output can be corrected"),
        ([], "recipe"),
    ],
)
def test_a_wrong_recipe_is_named_with_its_place(tmp_path, settings, complaint):
    file = tmp_path / "recipe.yaml"
    file.write_text(yaml.safe_dump(settings))
    with pytest.raises(BadInput, match=complaint):
        read_recipe(file)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (None, "cannot read"),
        ("a: [", "not valid YAML"),
        ("[" * 600, "nested too deeply"),
        ("a: 2026-99-99", "not valid YAML"),
    ],
)
def test_an_unreadable_recipe_is_one_sentence(tmp_path, text, complaint):
    file = tmp_path / "recipe.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(BadInput, match=complaint) as error:
        read_recipe(file)
    assert "\n" not in str(error.value)


def test_options_do_not_change_a_file(tmp_path):
    file = tmp_path / "recipe.json"
    file.write_text(json.dumps(recipe("resca").describe()))
    with pytest.raises(BadInput, match="leave out --interval"):
        resolve_method(str(file), MethodOptions(interval=3))


def test_a_plan_beside_a_model_is_a_method_by_its_name(tmp_path):
    file = tmp_path / "quick.yaml"
    file.write_text("""
name: quick
schedule: {kind: places, dense: [0, 4]}
predictor: {kind: multistep, weights: [[1], [-0.5, 1.5]]}
""")
    quick = resolve_method("quick", MethodOptions(), {"quick": file})
    assert quick.schedule == Places(dense=(0, 4)) and quick.predictor == Multistep(weights=((1.0,), (-0.5, 1.5)))
    with pytest.raises(BadInput, match="unknown method 'quick'"):
        resolve_method("quick", MethodOptions())


def test_lines_name_methods_and_plans_each_resolved_once(tmp_path):
    (tmp_path / "quick.yaml").write_text("name: quick\nschedule: {kind: places, dense: [0, 4]}\n")
    lines = [
        Item(id=str(number), prompt="a", seed=0, height=16, width=16, num_frames=5, steps=8, method=name, where="p")
        for number, name in enumerate(("quick", None, "full", "quick"))
    ]
    methods = methods_of(lines, {"quick": tmp_path / "quick.yaml"})
    assert methods == {"quick": read_recipe(tmp_path / "quick.yaml"), "full": RECIPES["full"]}
    with pytest.raises(BadInput, match="p: unknown method 'quick'"):
        methods_of(lines, {})


def test_places_refuse_another_number_of_steps():
    with pytest.raises(ValueError, match="chosen for 12 steps, not 50"):
        Places(dense=(0,), steps=12).start(50)
