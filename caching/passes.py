"""One evaluation of the model in each step, with everything that is kept for it.

Legend: N local tokens, D hidden width.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from caching.features.feature import Feature
from caching.features.registry import WHOLE_MODEL, make_feature
from caching.features.residual import WatchedResidual
from caching.models.adapter import Adapter, Inputs
from caching.recipe.clock import NO_SIGNALS, Signals
from caching.recipe.recipe import Recipe
from caching.refined import RefinedFeature, is_refined
from caching.site import Site
from caching.state_dict import StateDict
from caching.step import Step
from caching.text import TextTrimmer


class Stage(NamedTuple):
    """One of the models that denoise a video one after the other."""

    adapter: Adapter
    site: Site


class Pass:
    """One evaluation of the model in each step, with everything that is kept for it.

    Args:
        beside: another pass of the steps, with which the recipe may have it share what is cached.
    """

    def __init__(self, recipe: Recipe, stage: Stage, beside: "Pass | None" = None) -> None:
        self.adapter, self.site = adapter, site = stage
        if recipe.tokens and recipe.tokens.attends_anew and not adapter.attends_to_all:
            raise ValueError(f"{recipe.name} needs a model in which each token attends to all others")
        self.text = TextTrimmer() if adapter.drops_padding else None
        self.last_input: Tensor | None = None  # of the first block, if the schedule has asked for it
        self.dense_at = 0  # the number of the last step in which it was computed
        self.feature: Feature
        self.expected_change: Callable[[Step], float | None] = lambda step: None
        if beside is not None and recipe.one_pass_when_sparse:
            self.feature = beside.feature
        elif is_refined(recipe):
            self.feature = RefinedFeature(recipe, adapter, site, WHOLE_MODEL[recipe.feature](recipe, adapter, site))
        elif recipe.schedule.watches_output:
            watched = WatchedResidual(recipe, adapter, site)
            self.feature, self.expected_change = watched, watched.expected_change
        else:
            self.feature = make_feature(recipe, adapter, site)

    def trimmed(self, inputs: Inputs) -> Inputs:
        """The inputs without padded text, in models that drop it."""
        return inputs if self.text is None else self.text.trim(inputs)

    def signals(self, step: Step) -> Signals:
        """What a schedule may look at before a step; nothing where there are no values."""
        if step.patches.is_meta:
            return NO_SIGNALS
        return Signals(input_change=lambda: self._input_change(step), output_change=lambda: self.expected_change(step))

    def state_dict(self) -> StateDict:
        return {"feature": self.feature.state_dict(), "last_input": self.last_input, "dense_at": self.dense_at}

    def load_state_dict(self, state: StateDict) -> None:
        self.feature.load_state_dict(state["feature"])
        self.last_input, self.dense_at = state["last_input"], state["dense_at"]

    def _input_change(self, step: Step) -> float:
        """The relative change (L1) of the first block's modulated input since the last step; equal on all ranks."""
        value = self.adapter.modulated(step.before)
        last, self.last_input = value if self.last_input is None else self.last_input, value
        self.site.group.mark("decision", step.number)
        # Many tokens add up to more than float16 can hold.
        sums = [each.abs().sum(dtype=torch.float32) for each in (value - last, last)]
        change, size = self.site.group.total(torch.stack(sums)).tolist()
        return change / size
