"""Floating-point operations and cache of a generation, counted on the meta device by running the recipe itself."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import diffusers
import torch

from caching.depth import shallow
from caching.engine import Engine
from caching.group import Group
from caching.meta_counter import Known, MetaCounter
from caching.models.adapter import Inputs
from caching.models.state import Grid
from caching.recipe.recipe import RECIPES, Recipe
from caching.recipe.schedule import Places

# Of a transformer in `diffusers`, with `_class_name`: what its config.json holds, and whether its pipeline tells it the
# noise level of each token (`BY_TOKEN`), which costs more.
Config = Mapping[str, Any]
BY_TOKEN = "expand_timesteps"  # as diffusers calls it
Lengths = int | tuple[int, ...]  # text tokens of a prompt; where guidance takes several passes a step, of each
META = torch.device("meta")
KNOWN: Known = {}  # of this process


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a denoising loop costs, all ranks together."""

    flops: float  # a multiply-add counts 2
    cache_bytes: int  # the most that the method ever keeps, for weights of the given number format
    dense_steps: int
    sparse_steps: int


def count(
    config: Config,
    method: Recipe,
    *,
    grid: Grid,
    num_text_tokens: Lengths,
    num_steps: int,
    dtype: torch.dtype = torch.float32,
    changes: tuple[int, ...] = (),
) -> Cost:
    """The cost of a whole denoising loop.

    Args:
        grid: tokens along (frames, height, width).
        num_steps: of full sampling.
        changes: the steps, from 0, at which a next model of the same configuration takes over.
    """
    return _count(_hashable(config), method, grid, num_text_tokens, num_steps, dtype, changes)


def count_flops(config: Config, method: Recipe, *, grid: Grid, num_text_tokens: Lengths, num_steps: int) -> float:
    """FLOPs of a whole denoising loop, all ranks together."""
    return count(config, method, grid=grid, num_text_tokens=num_text_tokens, num_steps=num_steps).flops


def flops_of_prompt(
    config: Config,
    method: Recipe,
    *,
    grid: Grid,
    num_text_tokens: int,
    num_steps: int,
    dense_steps: tuple[int, ...] | None = None,
    span: range | None = None,
) -> float:
    """`count_flops` for one of many prompts, whose lengths differ: the first three lengths are counted, no others.

    Linear layers cost in proportion to the number of tokens and attention to its square, so the loop's cost is a
    quadratic polynomial of the number of text tokens, which three values decide.

    Args:
        dense_steps: those that the loop has made; by default the method's own.
        span: the steps that count, which begin with a dense one; by default all.
    """
    counted = _counted_lengths(_hashable(config), method, grid, num_steps, dense_steps, span)
    if num_text_tokens not in counted and len(counted) < 3:
        size: Any = {"grid": grid, "num_text_tokens": num_text_tokens, "num_steps": num_steps}
        counted[num_text_tokens] = sum(
            times * flops_by_groups(MetaLoop(each, method, **size, dense_steps=dense_steps), span=span)
            for times, each in shallow(config, method)
        )
    if num_text_tokens in counted:
        return counted[num_text_tokens]
    return sum(flops * _lagrange(length, list(counted), num_text_tokens) for length, flops in counted.items())


def flops_by_groups(loop: "MetaLoop", *, until_cache_is_full: bool = False, span: range | None = None) -> float:
    """FLOPs of a loop, or a `span` of it, of a schedule that does not depend on values, without running what repeats.

    A dense step and the sparse ones after it are a group. Once two groups of a length have cost the same, so do others
    of the same model and phase, and of the same side for Delta-DiT, which changes sides in the middle of the loop. With
    `until_cache_is_full` they have to keep as much, too, so that the engine has seen the most that is ever kept.
    """
    seen: dict[tuple[int, ...], list[tuple[float, int]]] = defaultdict(list)
    total = 0.0
    for first, length in groups_of(loop.dense_steps, loop.num_steps):
        if span is not None and first not in span:
            continue
        costs = seen[loop.model_at(first), length, loop.steps_of_first_side(first, length), loop.phase(first)]
        if len(costs) < 2 or costs[-1] != costs[-2]:
            with MetaCounter(KNOWN) as counter:
                loop.run(first, length)
            kept = loop.engine.peak_cache_bytes if until_cache_is_full else 0
            costs.append((float(counter.flops), kept))
        total += costs[-1][0]
    return total


def groups_of(dense_steps: list[int], num_steps: int) -> list[tuple[int, int]]:
    """The first step and the length of each group."""
    ends = [*dense_steps[1:], num_steps]
    return [(first, end - first) for first, end in zip(dense_steps, ends, strict=True)]


def _hashable(config: Config) -> str:
    return json.dumps(dict(config), sort_keys=True, default=str)


@lru_cache(maxsize=256)
def _counted_lengths(
    config: str,
    method: Recipe,
    grid: Grid,
    num_steps: int,
    dense_steps: tuple[int, ...] | None,
    span: range | None,
) -> dict[int, float]:
    """FLOPs by the number of text tokens, filled in as they are counted."""
    return {}


def _lagrange(length: int, lengths: list[int], at: int) -> float:
    """The weight of one of the lengths in the value elsewhere of the polynomial through all of them."""
    return prod((at - other) / (length - other) for other in lengths if other != length)


def count_full_flops(config: Config, *, grid: Grid, num_text_tokens: int, num_steps: int) -> float:
    """FLOPs without any caching; every step costs the same."""
    one = count_flops(config, RECIPES["full"], grid=grid, num_text_tokens=num_text_tokens, num_steps=1)
    return num_steps * one


@lru_cache(maxsize=256)
def _count(
    config: str,
    method: Recipe,
    grid: Grid,
    num_text_tokens: Lengths,
    num_steps: int,
    dtype: torch.dtype,
    changes: tuple[int, ...],
) -> Cost:
    lengths = (num_text_tokens,) if isinstance(num_text_tokens, int) else num_text_tokens
    alike = 1 if method.one_pass_when_sparse or len(set(lengths)) > 1 else len(lengths)  # passes that cost the same
    size: Any = {"grid": grid, "num_text_tokens": lengths[::alike], "num_steps": num_steps, "changes": changes}
    flops, cache_bytes, loop = 0.0, 0, None
    for times, each in shallow(json.loads(config), method):
        loop = MetaLoop(each, method, **size, dtype=dtype)
        flops += alike * times * flops_by_groups(loop, until_cache_is_full=True)
        cache_bytes += alike * times * loop.engine.peak_cache_bytes
    assert loop is not None
    dense_steps = len(loop.dense_steps)
    return Cost(
        flops=flops, cache_bytes=cache_bytes, dense_steps=dense_steps, sparse_steps=loop.num_steps - dense_steps
    )


def run_on_meta(
    config: Config,
    method: Recipe,
    *,
    grid: Grid,
    num_text_tokens: Lengths,
    num_steps: int,
    dtype: torch.dtype = torch.float32,
    group: Group | None = None,
    changes: tuple[int, ...] = (),
) -> Engine:
    """Run a whole denoising loop without values, as one rank of `group`; what it took is left in the engine."""
    size: Any = {"grid": grid, "num_text_tokens": num_text_tokens, "num_steps": num_steps, "changes": changes}
    loop = MetaLoop(config, method, **size, dtype=dtype, group=group)
    loop.run(0, loop.num_steps)
    return loop.engine


class MetaLoop:
    """A denoising loop without values, any steps of which can be run.

    Args:
        changes: the steps, from 0, at which a next model of the same configuration takes over.
        dense_steps: by default the method's own.
    """

    def __init__(
        self,
        config: Config,
        method: Recipe,
        *,
        grid: Grid,
        num_text_tokens: Lengths,
        num_steps: int,
        dtype: torch.dtype = torch.float32,
        group: Group | None = None,
        changes: tuple[int, ...] = (),
        dense_steps: Sequence[int] | None = None,
    ) -> None:
        self.engine = engine = Engine([_model(config, dtype) for _ in range(1 + len(changes))], method, group)
        self.num_steps, self.changes = method.schedule.num_steps(num_steps), changes
        planned = [step for step, dense in enumerate(method.dense_plan(num_steps)) if dense or step in changes]
        self.places = None if dense_steps is None else Places(dense=tuple(dense_steps))
        self.dense_steps = planned if dense_steps is None else list(dense_steps)
        self.begin(grid)
        patches = torch.empty(1, prod(grid), engine.adapter.patch_values, device=META, dtype=dtype)
        self.patches = engine.group.shard(patches)
        lengths = (num_text_tokens,) if isinstance(num_text_tokens, int) else num_text_tokens
        levels = self.patches.shape[:2] if config.get(BY_TOKEN) else (1,)
        self.passes = [self._inputs(length, levels, dtype) for length in lengths]

    def begin(self, grid: Grid) -> None:
        """Start anew."""
        levels = [1 - step / self.num_steps for step in range(self.num_steps)]
        places = self.places
        self.engine.begin(grid, levels, decide=lambda clock: places.start(len(levels)) if places else clock)

    def run(self, first: int, length: int) -> None:
        """Run some steps, as if all before them had been run."""
        self.engine.skip_to(first)
        with torch.no_grad():
            for step in range(first, first + length):
                model = self.engine.attachments[self.model_at(step)]
                for number, inputs in enumerate(self.passes):
                    with model.cache_context(f"pass {number}"):
                        model.forward(self.patches, True, None, **inputs)

    def model_at(self, step: int) -> int:
        """The number of the model whose turn it is in a step."""
        return sum(change <= step for change in self.changes)

    def phase(self, first: int) -> int:
        """What else decides what a group of steps computes; 0 where attention is of one kind, or not what is cached."""
        recipe, is_of_one_kind = self.engine.recipe, self.engine.adapter.attends_to_all
        return 0 if is_of_one_kind or recipe.feature != "attention" else recipe.schedule.phase(first, self.num_steps)

    def steps_of_first_side(self, first: int, length: int) -> int:
        """How many of some steps are in the first half of the loop; 0 for a method that does not change there."""
        changes = self.engine.recipe.changes_sides
        return max(0, min(length, self.num_steps // 2 - first)) if changes else 0

    def _inputs(self, num_text_tokens: int, levels: Sequence[int], dtype: torch.dtype) -> Inputs:
        """With noise levels of this shape: one, or `[1, N]` of the local tokens."""
        inputs = self.engine.adapter.example_inputs(num_text_tokens, META)
        return _in({**inputs, "timestep": torch.ones(*levels, device=META)}, dtype)


def _in(inputs: Inputs, dtype: torch.dtype) -> Inputs:
    """All tensors in this number format."""
    return {
        name: _in(value, dtype) if isinstance(value, Mapping) else value.to(dtype) for name, value in inputs.items()
    }


def _model(config: Config, dtype: torch.dtype) -> torch.nn.Module:
    """A transformer without values."""
    own = {name: value for name, value in config.items() if name != BY_TOKEN}
    with META:
        transformer = getattr(diffusers, config["_class_name"]).from_config(own).eval()
    return torch.nn.Module.to(transformer, dtype)  # the model's own `to` warns of what does not matter without values
