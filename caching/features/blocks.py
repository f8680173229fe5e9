"""What is cached, from the model's output down to its modules: the feature axis.

Legend: B batch, N local tokens, P values of a patch, D hidden width.
"""

from collections.abc import Callable
from typing import Any

from diffusers.hooks import HookRegistry, ModelHook
from torch import Tensor, nn

from caching.features.output import OutputFeature, add, added, run_blocks
from caching.models.state import State
from caching.predict.taylor import TaylorPredictor

HOOK = "resca"


class DeltaFeature(OutputFeature):
    """What two thirds of the blocks add to tokens and text: the rear ones, and later in sampling the front ones.

    Delta-DiT: the front blocks draw the outline, which early steps decide. Two thirds is what its FLOPs for FLUX show.
    """

    def __init__(self, adapter: Any, order: int, num_steps: int) -> None:
        super().__init__(adapter, order)
        self.skipped = round(2 / 3 * adapter.num_blocks)
        self.front, self.rear = Unit(order), Unit(order)
        self.sampled, self.num_steps = 0, num_steps

    def run(self, time: float, state: State, *, keep: bool) -> State:
        self.sampled += 1
        states = [state]
        for index in range(self.adapter.num_blocks):
            states.append(self.adapter.run(index, states[-1]))
        if keep:
            self.front.observe(time, added(states[0], states[self.skipped]))
            self.rear.observe(time, added(states[-1 - self.skipped], states[-1]))
        return states[-1]

    def observe(self, time: float, before: State, after: State, velocity: Tensor) -> None:
        """Nothing: `run` observes."""

    def sparse(self, time: float, embed: Callable[[], State]) -> Tensor:
        """The velocity from a third of the blocks, which attend as ever."""
        self.sampled += 1
        computed = self.adapter.num_blocks - self.skipped
        if self.sampled <= self.num_steps / 2:
            state = add(run_blocks(self.adapter, embed(), range(computed)), self.rear.predict(time))
        else:
            state = add(embed(), self.front.predict(time))
            state = run_blocks(self.adapter, state, range(self.skipped, self.adapter.num_blocks))
        return self.adapter.head(state)

    @property
    def cache_bytes(self) -> int:
        return self.front.cache_bytes + self.rear.cache_bytes


class BlockFeature(OutputFeature):
    """What each block adds to tokens and text, or what chosen modules inside the blocks give instead.

    Args:
        modules: of each block, those that are cached; a block without any is cached whole, unless `only_modules`.
    """

    def __init__(self, adapter: Any, order: int, modules: list[list[Any]], *, only_modules: bool = False) -> None:
        super().__init__(adapter, order)
        self.time, self.dense, self.keep = 0.0, True, True
        self.hooked = [module for of_block in modules for module in of_block]
        self.whole = [not (of_block or only_modules) for of_block in modules]
        self.units = [Unit(order) for _ in range(adapter.num_blocks)]
        self.part_units = [Unit(order) for _ in self.hooked]
        for module, unit in zip(self.hooked, self.part_units, strict=True):
            HookRegistry.check_if_exists_or_initialize(module).register_hook(PartHook(self, unit), HOOK)

    def run(self, time: float, state: State, *, keep: bool) -> State:
        self.time, self.dense, self.keep = time, True, keep
        return self._run(state)

    def observe(self, time: float, before: State, after: State, velocity: Tensor) -> None:
        """Nothing: units observe on the way."""

    def sparse(self, time: float, embed: Callable[[], State]) -> Tensor:
        self.time, self.dense = time, False
        return self.adapter.head(self._run(embed()))

    def detach(self) -> None:
        for module in self.hooked:
            HookRegistry.check_if_exists_or_initialize(module).remove_hook(HOOK)
        self.hooked = []
        for unit in [*self.units, *self.part_units]:  # hooks form cycles, which would keep them until a collection
            unit.outputs = []

    @property
    def cache_bytes(self) -> int:
        return sum(unit.cache_bytes for unit in [*self.units, *self.part_units])

    def _run(self, state: State) -> State:
        for index, (whole, unit) in enumerate(zip(self.whole, self.units, strict=True)):
            state = self._run_whole(index, unit, state) if whole else self.adapter.run(index, state)
        return state

    def _run_whole(self, index: int, unit: "Unit", state: State) -> State:
        if self.dense:
            after = self.adapter.run(index, state)
            if self.keep:
                unit.observe(self.time, added(state, after))
            return after
        return add(state, unit.predict(self.time))


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

    @property
    def cache_bytes(self) -> int:
        return sum(predictor.cache_bytes for predictor in self.outputs)


class PartHook(ModelHook):
    """Computes a module in dense steps and predicts its outputs in sparse ones."""

    def __init__(self, feature: BlockFeature, unit: Unit) -> None:
        super().__init__()
        self.feature, self.unit = feature, unit

    def new_forward(self, module: nn.Module, *args: Any, **kwargs: Any) -> Any:
        """Called in place of the module's own forward."""
        if self.feature.dense:
            compute: Any = self.fn_ref.original_forward
            output = compute(*args, **kwargs)
            if self.feature.keep:
                self.unit.observe(self.feature.time, output if isinstance(output, tuple) else (output,))
            return output
        first, *others = self.unit.predict(self.feature.time)
        return (first, *others) if others else first
