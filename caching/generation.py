"""One generation: which steps are dense, and what its passes through the model keep from step to step.

Legend: B batch, N local tokens, P values of a patch, D hidden width.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field

import torch
from torch import Tensor

from caching.models.adapter import Inputs
from caching.models.levels import time_of, with_levels
from caching.parted import PartedStep
from caching.passes import Pass, Stage
from caching.recipe.clock import Clock
from caching.recipe.recipe import Recipe
from caching.state_dict import StateDict
from caching.step import Step


@dataclass(kw_only=True)
class Progress:
    """How far a generation is, and what it has taken so far; it stays when the generation is gone."""

    step: int = 0
    """The steps that are done."""
    dense: list[bool] = field(default_factory=list)
    """Whether each was dense."""
    peak_cache_bytes: int = 0


class Generation:
    """The steps of one video. A step is a noise level, decided once; a pass is one evaluation of the model in it.

    Guidance takes several passes a step (cond and uncond). Each has a name, and all that is kept is kept by pass; the
    first pass of a step decides whether it is dense. A pass that was not there at the last dense step is computed,
    whatever the step is. Models may take over from each other on the way (Wan 2.2): the step of a change is dense, and
    what was kept of the model before it is let go. Where the recipe says so, what is cached is one thing for all
    passes, and the first pass of a sparse step answers for all.

    What steps change is its `state_dict`; the rest is as a new generation with the same settings makes it.

    Args:
        stages: each model's adapter, and where it works.
        levels: the noise level of each step.
    """

    def __init__(self, recipe: Recipe, stages: Sequence[Stage], levels: list[float], clock: Clock) -> None:
        if stages[0].adapter.predicts_epsilon:
            recipe.predictor.check_epsilon()
        self.recipe, self.stages, self.levels, self.clock = recipe, stages, levels, clock
        self.progress = Progress()
        self.passes: dict[str, Pass] = {}
        self.first: Pass | None = Pass(recipe, stages[0])  # until it has a name: a recipe that cannot work says so
        self.model = 0  # whose passes these are
        self.dense_at = 0  # the number of the last dense step
        self.is_dense = True  # the present step
        self.seen: list[str] = []  # the passes of the present step
        self.timestep: Tensor | None = None  # of the present step, where passes have no names
        self.answer: Tensor | None = None  # of the present step, where it is that of all passes
        self.parted = PartedStep(stages[0].site.group)

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
            step = self._make_step(patches, each.trimmed(inputs))
            if is_first:
                self._decide(each, step)
            return self._run(each, step)

    def close(self) -> None:
        """Leave the models as they were; nothing is cached any more."""
        self._let_go()

    @property
    def cache_bytes(self) -> int:
        return sum(feature.cache_bytes for feature in {each.feature for each in self.passes.values()})

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
        beside = next(iter(self.passes.values()), None)
        self.passes[name] = self.first or Pass(self.recipe, self.stages[self.model], beside)
        self.first = None
        return self.passes[name]

    def _moves_on(self, inputs: Inputs) -> bool:
        now, last = inputs.get("timestep"), self.timestep
        return now is None or last is None or now.is_meta or not torch.equal(now, last)

    def _begin_step(self, model: int) -> None:
        if self.progress.step >= len(self.levels):
            raise RuntimeError("call begin() with the grid and the noise levels before each generation")
        self.progress.step += 1
        self.seen, self.answer = [], None
        self.parted.begin()
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
        adapter, site = self.stages[self.model]
        in_sigma = self.recipe.predictor.axis == "sigma"
        time = time_of(level, of_epsilon=adapter.predicts_epsilon) if in_sigma else float(number - 1)
        own, span = with_levels(inputs, site.own), following - level
        return Step(adapter, site, number=number, sigma=level, time=time, span=span, patches=patches, inputs=own)

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
        if self.answer is not None:
            return self.answer
        computes, group = self.is_dense or not self._is_fresh(each), step.site.group
        group.mark("dense" if computes else "sparse", step.number, len(self.levels) - step.number)
        if not computes and self.recipe.one_pass_when_sparse:
            self.answer = each.feature.sparse(step).float()
            return self.answer
        if not computes:
            return self.parted.run(each, step, computes=False, keep=False)
        each.dense_at = step.number
        keep = self.clock.may_be_sparse_after(step.number - 1)
        with step.site.timed("dense"):
            velocity = self.parted.run(each, step, computes=True, keep=keep)
        self.progress.peak_cache_bytes = max(self.progress.peak_cache_bytes, self.cache_bytes)
        return velocity
