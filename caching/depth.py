"""Shallow models that stand for a deep one where costs are counted: blocks of a kind cost the same."""

from collections.abc import Mapping
from inspect import signature
from math import gcd
from typing import Any

import diffusers

from caching.recipe.recipe import Recipe

DEPTHS = ("num_layers", "num_single_layers")  # as diffusers calls the number of blocks of each kind


def shallow(config: Mapping[str, Any], method: Recipe) -> list[tuple[int, dict[str, Any]]]:
    """Configurations with one or two blocks of a kind, and how often the cost of each is in that of the whole.

    A cost is that of all that is no block, and so much for each block: one model of one block of each kind, and for
    each kind one with a second block, say both. Delta-DiT parts them: there, a model of a few and one of twice as many.
    """
    depths = {name: depth for name in DEPTHS if (depth := _depth(config, name)) > 1}
    if method.changes_sides or not depths:
        return _scaled(config, method, depths)
    base = {**config, **dict.fromkeys(depths, 1)}
    deeper = [(depth - 1, {**base, name: 2}) for name, depth in depths.items()]
    return [(1 - sum(times for times, _ in deeper), base), *deeper]


def _scaled(config: Mapping[str, Any], method: Recipe, depths: Mapping[str, int]) -> list[tuple[int, dict[str, Any]]]:
    """The smallest model whose blocks are parted as those of the whole, and one of twice as many; or the whole."""
    total = sum(depths.values())
    for times in range(gcd(*depths.values()), 2, -1):
        alike = (times * method.skipped_blocks(k * total // times) == k * method.skipped_blocks(total) for k in (1, 2))
        if all(depth % times == 0 for depth in depths.values()) and all(alike):
            one, two = ({**config, **{name: k * depth // times for name, depth in depths.items()}} for k in (1, 2))
            return [(2 - times, one), (times - 1, two)]
    return [(1, dict(config))]


def _depth(config: Mapping[str, Any], name: str) -> int:
    """How many blocks of a kind a model has; 0 where it has no such kind."""
    known = signature(getattr(diffusers, config["_class_name"]).__init__).parameters
    return config.get(name, known[name].default) if name in known else 0
