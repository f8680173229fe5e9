"""One generation: which steps are dense, and what its pass through the model keeps from step to step.

Legend: B batch, N local tokens, P values of a patch, D hidden width.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from caching.features.feature import Feature
from caching.features.registry import WHOLE_MODEL, make_feature
from caching.models.adapter import Adapter, Inputs
from caching.recipe.recipe import Recipe
from caching.recipe.schedule import NO_SIGNALS, Clock, Signals
from caching.refined import RefinedFeature, is_refined
from caching.site import Site
from caching.state_dict import StateDict
from caching.step import Step
from caching.text import TextTrimmer


@dataclass(kw_only=True)
class Progress:
    """How far a generation is, and what it has taken so far; it stays when the generation is gone."""

    step: int = 0
    """The steps that are done."""
    dense: list[bool] = field(default_factory=list)
    """Whether each was dense."""
    peak_cache_bytes: int = 0


class Pass:
    """One evaluation of the model in each step, with everything that is kept for it."""

    def __init__(self, recipe: Recipe, adapter: Adapter, site: Site) -> None:
        self.adapter, self.site = adapter, site
        self.text = TextTrimmer()
        self.last_input: Tensor | None = None  # of the first block, if the schedule has asked for it
        self.feature: Feature
        self.expected_error: Callable[[float, float], float | None] = lambda time, span: None
        if is_refined(recipe):
            refined = RefinedFeature(recipe, adapter, site, WHOLE_MODEL[recipe.feature](recipe, adapter, site))
            self.feature, self.expected_error = refined, refined.expected_error
        else:
            self.feature = make_feature(recipe, adapter, site)

    def signals(self, step: Step) -> Signals:
        """What a schedule may look at before a step; nothing where there are no values."""
        if step.patches.is_meta:
            return NO_SIGNALS
        return Signals(
            input_change=lambda: self._input_change(step), error=lambda: self.expected_error(step.time, step.span)
        )

    def state_dict(self) -> StateDict:
        return {"feature": self.feature.state_dict(), "last_input": self.last_input}

    def load_state_dict(self, state: StateDict) -> None:
        self.feature.load_state_dict(state["feature"])
        self.last_input = state["last_input"]

    def _input_change(self, step: Step) -> float:
        """The relative change (L1) of the first block's modulated input since the last step; equal on all ranks."""
        value = self.adapter.modulated(step.before)
        last, self.last_input = value if self.last_input is None else self.last_input, value
        self.site.group.mark("decision", step.number)
        # Many tokens add up to more than float16 can hold.
        sums = [each.abs().sum(dtype=torch.float32) for each in (value - last, last)]
        change, size = self.site.group.total(torch.stack(sums)).tolist()
        return change / size


class Generation:
    """The steps of one video, decided once a step, whatever the number of passes; there is one pass so far.

    What steps change is its `state_dict`; the rest is as a new generation with the same settings makes it.

    Args:
        levels: the noise level of each step.
    """

    def __init__(self, recipe: Recipe, adapter: Adapter, site: Site, levels: list[float], clock: Clock) -> None:
        self.recipe, self.adapter, self.site, self.levels, self.clock = recipe, adapter, site, levels, clock
        self.progress = Progress()
        self.only = Pass(recipe, adapter, site)

    def advance(self, patches: Tensor, inputs: Inputs) -> Tensor:
        """The velocity `[B, N, P]` of the next step, in float32. RuntimeError after the last one."""
        number = self.progress.step
        if number >= len(self.levels):
            raise RuntimeError("call begin() with the grid and the noise levels before each generation")
        self.progress.step += 1
        with self.site.timed("step"):
            return self._run(number, self._make_step(number, patches, self.only.text.trim(inputs)))

    def close(self) -> None:
        """Leave the model as it was; nothing is cached any more."""
        self.only.feature.detach()
        self.site.router.forget()

    @property
    def cache_bytes(self) -> int:
        return self.only.feature.cache_bytes

    def state_dict(self) -> StateDict:
        return {"progress": asdict(self.progress), "clock": self.clock.state_dict(), "only": self.only.state_dict()}

    def load_state_dict(self, state: StateDict) -> None:
        vars(self.progress).update(state["progress"])
        self.clock.load_state_dict(state["clock"])
        self.only.load_state_dict(state["only"])

    def _make_step(self, number: int, patches: Tensor, inputs: Inputs) -> Step:
        level, following = [*self.levels, 0.0][number : number + 2]
        time = level if self.recipe.predictor.axis == "sigma" else float(number)
        return Step(
            self.adapter,
            self.site,
            number=number + 1,
            time=time,
            span=following - level,
            patches=patches,
            inputs=inputs,
        )

    def _run(self, number: int, step: Step) -> Tensor:
        is_dense = self.clock.is_dense(number, self.only.signals(step))
        self.progress.dense.append(is_dense)
        self.site.group.mark("dense" if is_dense else "sparse", step.number, len(self.levels) - step.number)
        if not is_dense:
            return self.only.feature.sparse(step).float()
        with self.site.timed("dense"):
            velocity = self.only.feature.dense(step, keep=self.clock.may_be_sparse_after(number))
        self.progress.peak_cache_bytes = max(self.progress.peak_cache_bytes, self.cache_bytes)
        return velocity
