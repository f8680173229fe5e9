"""The dictionary that makes features."""

from collections.abc import Callable
from importlib import import_module

from caching.features.blocks import DeltaFeature, attentions, cross_attentions, modules, whole_blocks
from caching.features.feature import Feature
from caching.features.mean import MeanCrossAttention
from caching.features.output import OutputFeature, StackFeature
from caching.features.residual import ResidualFeature
from caching.models.adapter import Adapter
from caching.recipe.recipe import Recipe
from caching.site import Site

Maker = Callable[[Recipe, Adapter, Site], Feature]

WHOLE_MODEL: dict[str, type[OutputFeature]] = {"output": OutputFeature, "stack": StackFeature}
FEATURES: dict[str, Maker] = {
    **WHOLE_MODEL,
    "residual": ResidualFeature,
    "delta": DeltaFeature,
    "half_delta": DeltaFeature,
    "block": whole_blocks,
    "module": modules,
    "attention": attentions,
    "cross_attention": cross_attentions,
    "mean_cross_attention": MeanCrossAttention,
}


def make_feature(recipe: Recipe, adapter: Adapter, site: Site) -> Feature:
    """What the recipe's feature asks for, or its tokens or predictor. ValueError if the model has no such part."""
    if recipe.feature_class is None:
        return FEATURES[recipe.feature](recipe, adapter, site)
    module, _, name = recipe.feature_class.partition(":")
    maker: Maker = getattr(import_module(module), name)
    return maker(recipe, adapter, site)
