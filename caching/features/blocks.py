"""What is cached inside the model: what a part of the blocks adds, each block, or the modules in them.

Legend: B batch, N local tokens, P values of a patch, D hidden width.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from torch import Tensor, nn

from caching.features.stand_ins import Forward, StandIns
from caching.models.adapter import Adapter, run_blocks
from caching.models.state import State
from caching.predict.taylor import TaylorPredictor
from caching.recipe.recipe import Recipe
from caching.recipe.schedule import Broadcast
from caching.site import Site
from caching.state_dict import StateDict
from caching.step import Step


class Unit:
    """The cached outputs of one block or module."""

    def __init__(self, order: int) -> None:
        self.order = order
        self.outputs: list[TaylorPredictor] = []

    def observe(self, time: float, outputs: tuple[Tensor, ...]) -> None:
        if not self.outputs:
            self.outputs = [TaylorPredictor(self.order) for _ in outputs]
        for predictor, output in zip(self.outputs, outputs, strict=True):
            predictor.observe(time, output)

    def predict(self, time: float) -> tuple[Tensor, ...]:
        return tuple(predictor.predict(time) for predictor in self.outputs)

    def forget(self) -> None:
        self.outputs = []

    @property
    def cache_bytes(self) -> int:
        return sum(predictor.cache_bytes for predictor in self.outputs)

    def state_dict(self) -> StateDict:
        return {"outputs": [predictor.state_dict() for predictor in self.outputs]}

    def load_state_dict(self, state: StateDict) -> None:
        self.outputs = [TaylorPredictor(self.order) for _ in state["outputs"]]
        for predictor, of_output in zip(self.outputs, state["outputs"], strict=True):
            predictor.load_state_dict(of_output)


class DeltaFeature:
    """What a part of the blocks adds to tokens and text: the rear ones, and later in sampling the front ones.

    Delta-DiT: the front blocks draw the outline, which early steps decide. Two thirds is what its FLOPs for FLUX show,
    and half what those for DiT show.
    """

    follower = None

    def __init__(self, recipe: Recipe, adapter: Adapter, site: Site) -> None:
        order = recipe.predictor.order
        self.adapter, self.num_steps = adapter, site.num_steps
        self.skipped = recipe.skipped_blocks(adapter.num_blocks)
        self.front, self.rear = Unit(order), Unit(order)

    def dense(self, step: Step, *, keep: bool) -> Tensor:
        """No state outlives the addition that it is needed for: at full size each takes most of a gigabyte."""
        computed = self.adapter.num_blocks - self.skipped
        after_first = run_blocks(self.adapter, step.before, range(computed))
        state = run_blocks(self.adapter, after_first, range(computed, self.skipped))
        if keep:
            self.front.observe(step.time, added(step.before, state))
        state = run_blocks(self.adapter, state, range(self.skipped, self.adapter.num_blocks))
        if keep:
            self.rear.observe(step.time, added(after_first, state))
        return step.velocity(state)

    def sparse(self, step: Step) -> Tensor:
        """The velocity from a third of the blocks, which attend as ever."""
        computed = self.adapter.num_blocks - self.skipped
        if step.number <= self.num_steps / 2:
            state = add(run_blocks(self.adapter, step.before, range(computed)), self.rear.predict(step.time))
        else:
            state = add(step.before, self.front.predict(step.time))
            state = run_blocks(self.adapter, state, range(self.skipped, self.adapter.num_blocks))
        return self.adapter.head(state)

    def detach(self) -> None:
        self.front.forget()
        self.rear.forget()

    @property
    def cache_bytes(self) -> int:
        return self.front.cache_bytes + self.rear.cache_bytes

    def state_dict(self) -> StateDict:
        return {"front": self.front.state_dict(), "rear": self.rear.state_dict()}

    def load_state_dict(self, state: StateDict) -> None:
        self.front.load_state_dict(state["front"])
        self.rear.load_state_dict(state["rear"])


class BlockFeature:
    """What each block adds to tokens and text, or what chosen modules inside the blocks give instead.

    Args:
        modules: of each block, those that are cached; a block without any is cached whole, unless `only_modules`.
        part_units: what keeps the outputs of each of these; by default a plain unit each.
        due: of each of these, whether it is computed in a step, counted from 0; by default in dense ones.
    """

    follower = None

    def __init__(
        self,
        adapter: Adapter,
        order: int,
        modules: Sequence[Sequence[nn.Module]],
        *,
        only_modules: bool = False,
        part_units: Sequence[Unit] | None = None,
        due: Sequence[Callable[[int], bool]] | None = None,
    ) -> None:
        self.adapter = adapter
        self.number, self.time, self.computes, self.keep = 0, 0.0, True, True  # of the present step
        cached = [module for of_block in modules for module in of_block]
        self.whole = [not (of_block or only_modules) for of_block in modules]
        self.units = [Unit(order) for _ in range(adapter.num_blocks)]
        self.part_units = [Unit(order) for _ in cached] if part_units is None else part_units
        self.stand_ins = StandIns()
        for module, unit, is_due in zip(cached, self.part_units, due or [None] * len(cached), strict=True):
            self.stand_ins.add(module, Part(self, unit, is_due))

    def dense(self, step: Step, *, keep: bool) -> Tensor:
        self.number, self.time, self.computes, self.keep = step.number, step.time, True, keep
        return step.velocity(self._run(step.before))

    def sparse(self, step: Step) -> Tensor:
        self.number, self.time, self.computes = step.number, step.time, False
        return self.adapter.head(self._run(step.before))

    def detach(self) -> None:
        self.stand_ins.leave()
        for unit in [*self.units, *self.part_units]:  # hooks form cycles, which would keep them until a collection
            unit.forget()

    @property
    def cache_bytes(self) -> int:
        return sum(unit.cache_bytes for unit in [*self.units, *self.part_units])

    def state_dict(self) -> StateDict:
        return {"units": [unit.state_dict() for unit in [*self.units, *self.part_units]]}

    def load_state_dict(self, state: StateDict) -> None:
        for unit, of_unit in zip([*self.units, *self.part_units], state["units"], strict=True):
            unit.load_state_dict(of_unit)

    def _run(self, state: State) -> State:
        self.stand_ins.take_turns()
        for index, (whole, unit) in enumerate(zip(self.whole, self.units, strict=True)):
            state = self._run_whole(index, unit, state) if whole else self.adapter.run(index, state)
        return state

    def _run_whole(self, index: int, unit: Unit, state: State) -> State:
        if self.computes:
            after = self.adapter.run(index, state)
            if self.keep:
                unit.observe(self.time, added(state, after))
            return after
        return add(state, unit.predict(self.time))


class Part:
    """Computes a module in dense steps, or where it is due, and predicts its outputs in others."""

    def __init__(self, feature: BlockFeature, unit: Unit, is_due: Callable[[int], bool] | None = None) -> None:
        self.feature, self.unit, self.is_due = feature, unit, is_due

    def answer(self, forward: Forward, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        if self._computes():
            output = forward(*args, **kwargs)
            if self.feature.keep:
                self.unit.observe(self.feature.time, output if isinstance(output, tuple) else (output,))
            return output
        first, *others = self.unit.predict(self.feature.time)
        return (first, *others) if others else first

    def _computes(self) -> bool:
        """What has kept nothing so far is computed, whatever the step is."""
        if self.is_due is None:
            return self.feature.computes
        return self.is_due(self.feature.number - 1) or not self.unit.outputs


def whole_blocks(recipe: Recipe, adapter: Adapter, site: Site) -> BlockFeature:
    """Each block."""
    return BlockFeature(adapter, recipe.predictor.order, [[] for _ in range(adapter.num_blocks)])


def modules(recipe: Recipe, adapter: Adapter, site: Site) -> BlockFeature:
    """Every attention and feed-forward module; a block that has no such parts as a whole."""
    return BlockFeature(adapter, recipe.predictor.order, [adapter.parts(index) for index in range(adapter.num_blocks)])


def attentions(recipe: Recipe, adapter: Adapter, site: Site) -> BlockFeature:
    """Nothing but attention; where it is in space and in time by turns, each of its kinds as the schedule says."""
    order, schedule = recipe.predictor.order, recipe.schedule
    if adapter.attends_to_all or not isinstance(schedule, Broadcast):
        return BlockFeature(adapter, order, [[attention] for attention in adapter.attentions], only_modules=True)
    kinds = [*adapter.attentions, *adapter.cross_attentions]
    parts = [[part for part in adapter.parts(index) if part in kinds] for index in range(adapter.num_blocks)]
    due = [
        partial(schedule.begins, num_steps=site.num_steps, every=_interval(schedule, adapter, index, part))
        for index, of_block in enumerate(parts)
        for part in of_block
    ]
    return BlockFeature(adapter, order, parts, only_modules=True, due=due)


def _interval(schedule: Broadcast, adapter: Adapter, index: int, part: nn.Module) -> int:
    """Every how many steps an attention module of a block is computed."""
    if part in adapter.cross_attentions:
        return schedule.text
    return schedule.time if adapter.attends_in_time(index) else schedule.every


def cross_attentions(recipe: Recipe, adapter: Adapter, site: Site) -> BlockFeature:
    """Nothing but attention to the text."""
    return BlockFeature(adapter, recipe.predictor.order, cross_attentions_of(recipe, adapter), only_modules=True)


def cross_attentions_of(recipe: Recipe, adapter: Adapter) -> list[list[nn.Module]]:
    """Those of each block. ValueError for a model that has none apart."""
    if not adapter.cross_attentions:
        raise ValueError(f"{recipe.name} needs a model with cross-attention, such as Wan")
    without = adapter.num_blocks - len(adapter.cross_attentions)
    return [*([attention] for attention in adapter.cross_attentions), *([] for _ in range(without))]


def added(before: State, after: State) -> tuple[Tensor, Tensor]:
    """What lies between two states, of tokens and text."""
    return after.tokens - before.tokens, after.text - before.text


def add(state: State, added: tuple[Tensor, ...]) -> State:
    """The state with what is added to its tokens and its text."""
    tokens, text = added
    return replace(state, tokens=state.tokens + tokens, text=state.text + text)
