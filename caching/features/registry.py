"""The feature that a recipe caches, made for one generation."""

from typing import Any

from caching.features.blocks import BlockFeature, DeltaFeature
from caching.features.columns import ColumnFeature
from caching.features.merging import MergingFeature
from caching.features.output import FittedOutput, OutputFeature, StackFeature
from caching.features.partial import PartialFeature
from caching.recipe.recipe import Multistep, Recipe
from caching.recipe.tokens import ClusteredTokens, MergedTokens, SelectedTokens, SparseColumns
from caching.site import Site


def make_feature(recipe: Recipe, adapter: Any, site: Site) -> OutputFeature:
    """What the recipe's feature and tokens ask for. ValueError if the model has no such part."""
    kind, order, blocks = recipe.feature, recipe.predictor.order, range(adapter.num_blocks)
    if isinstance(recipe.tokens, SelectedTokens | ClusteredTokens):
        return PartialFeature(adapter, order, recipe.tokens, site)
    if isinstance(recipe.tokens, MergedTokens):
        return MergingFeature(adapter, order, recipe.tokens, site)
    if isinstance(recipe.tokens, SparseColumns):
        return ColumnFeature(adapter, order, recipe.tokens, site)
    if isinstance(recipe.predictor, Multistep):
        return FittedOutput(adapter, recipe.predictor.weights)
    if kind == "output":
        return OutputFeature(adapter, order)
    if kind == "stack":
        return StackFeature(adapter, order)
    if kind == "delta":
        return DeltaFeature(adapter, order, site.num_steps)
    if kind == "attention":
        return BlockFeature(adapter, order, [[attention] for attention in adapter.attentions], only_modules=True)
    if kind == "cross_attention":
        if not adapter.cross_attentions:
            raise ValueError(f"{recipe.name} needs a model with cross-attention, such as Wan")
        return BlockFeature(adapter, order, [[attention] for attention in adapter.cross_attentions], only_modules=True)
    if kind == "module":
        return BlockFeature(adapter, order, [adapter.parts(index) for index in blocks])
    return BlockFeature(adapter, order, [[] for _ in blocks])
