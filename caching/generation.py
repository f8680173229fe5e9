"""One generation: which steps are dense, and what its passes through the model keep from step to step.

Legend: B batch, N local tokens, P values of a patch, D hidden width.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import NamedTuple

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


class Stage(NamedTuple):
    """One of the models that denoise a video one after the other."""

    adapter: Adapter
    site: Site


class Pass:
    """One evaluation of the model in each step, with everything that is kept for it."""

    def __init__(self, recipe: Recipe, stage: Stage) -> None:
        self.adapter, self.site = adapter, site = stage
        self.text = TextTrimmer()
        self.last_input: Tensor | None = None  # of the first block, if the schedule has asked for it
        self.dense_at = 0  # the number of the last step in which it was computed
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


class Generation:
    """The steps of one video. A step is a noise level, decided once; a pass is one evaluation of the model in it.

    Guidance takes several passes a step (cond and uncond). Each has a name, and all that is kept is kept by pass; the
    first pass of a step decides whether it is dense. A pass that was not there at the last dense step is computed,
    whatever the step is. Models may take over from each other on the way (Wan 2.2): the step of a change is dense, and
    what was kept of the model before it is let go.

    What steps change is its `state_dict`; the rest is as a new generation with the same settings makes it.

    Args:
        stages: each model's adapter, and where it works.
        levels: the noise level of each step.
    """

    def __init__(self, recipe: Recipe, stages: Sequence[Stage], levels: list[float], clock: Clock) -> None:
        self.recipe, self.stages, self.levels, self.clock = recipe, stages, levels, clock
        self.progress = Progress()
        self.passes: dict[str, Pass] = {}
        self.first: Pass | None = Pass(recipe, stages[0])  # until it has a name: a recipe that cannot work says so
        self.model = 0  # whose passes these are
        self.dense_at = 0  # the number of the last dense step
        self.is_dense = True  # the present step
        self.seen: list[str] = []  # the passes of the present step
        self.timestep: Tensor | None = None  # of the present step, where passes have no names

    def advance(self, model: int, name: str | None, patches: Tensor, inputs: Inputs) -> Tensor:
        """The velocity `[B, N, P]` of a pass, in float32. RuntimeError after the last step.

        A name that the step has seen begins the next one. Without a name, another timestep does (a GPU's host waits to
        see it), and the same one again is a further pass.
        """
        if model != self.model or not self.seen or (name in self.seen if name else self._moves_on(inputs)):
            self._begin_step(model)
        self.timestep = inputs.get("timestep")
        name = name or f"pass {len(self.seen)}"
        is_first = not self.seen
        self.seen.append(name)
        each = self.passes[name] if name in self.passes else self._make_pass(name)
        with self.stages[model].site.timed("step"):
            step = self._make_step(patches, each.text.trim(inputs))
            if is_first:
                self._decide(each, step)
            return self._run(each, step)

    def close(self) -> None:
        """Leave the models as they were; nothing is cached any more."""
        self._let_go()

    @property
    def cache_bytes(self) -> int:
        return sum(each.feature.cache_bytes for each in self.passes.values())

    def state_dict(self) -> StateDict:
        """To be asked for between two steps."""
        return {
            "progress": asdict(self.progress),
            "clock": self.clock.state_dict(),
            "model": self.model,
            "dense_at": self.dense_at,
            "passes": {name: each.state_dict() for name, each in self.passes.items()},
        }

    def load_state_dict(self, state: StateDict) -> None:
        vars(self.progress).update(state["progress"])
        self.clock.load_state_dict(state["clock"])
        if state["model"] != self.model:
            self._let_go()  # the first pass is the first model's
        self.model, self.dense_at, self.seen = state["model"], state["dense_at"], []
        for name, of_pass in state["passes"].items():
            self._make_pass(name).load_state_dict(of_pass)

    def _make_pass(self, name: str) -> Pass:
        self.passes[name] = self.first or Pass(self.recipe, self.stages[self.model])
        self.first = None
        return self.passes[name]

    def _moves_on(self, inputs: Inputs) -> bool:
        now, last = inputs.get("timestep"), self.timestep
        return now is None or last is None or now.is_meta or not torch.equal(now, last)

    def _begin_step(self, model: int) -> None:
        if self.progress.step >= len(self.levels):
            raise RuntimeError("call begin() with the grid and the noise levels before each generation")
        self.progress.step += 1
        self.seen = []
        if model != self.model:
            self._let_go()
            self.model = model

    def _let_go(self) -> None:
        for each in [*self.passes.values(), *([self.first] if self.first else [])]:
            each.feature.detach()
        self.passes, self.first = {}, None
        self.stages[self.model].site.router.forget()

    def _make_step(self, patches: Tensor, inputs: Inputs) -> Step:
        number = self.progress.step
        level, following = [*self.levels, 0.0][number - 1 : number + 1]
        time = level if self.recipe.predictor.axis == "sigma" else float(number - 1)
        adapter, site = self.stages[self.model]
        return Step(adapter, site, number=number, time=time, span=following - level, patches=patches, inputs=inputs)

    def _decide(self, each: Pass, step: Step) -> None:
        """Whether the step is dense, for all its passes."""
        is_dense = self.clock.is_dense(step.number - 1, each.signals(step))
        self.is_dense = is_dense or not self._is_fresh(each)
        self.progress.dense.append(self.is_dense)
        if self.is_dense:
            self.dense_at = step.number

    def _is_fresh(self, each: Pass) -> bool:
        """Whether what the pass keeps is of the last dense step."""
        return 0 < self.dense_at <= each.dense_at

    def _run(self, each: Pass, step: Step) -> Tensor:
        computes = self.is_dense or not self._is_fresh(each)
        step.site.group.mark("dense" if computes else "sparse", step.number, len(self.levels) - step.number)
        if not computes:
            return each.feature.sparse(step).float()
        with step.site.timed("dense"):
            velocity = each.feature.dense(step, keep=self.clock.may_be_sparse_after(step.number - 1))
        each.dense_at = step.number
        self.progress.peak_cache_bytes = max(self.progress.peak_cache_bytes, self.cache_bytes)
        return velocity
