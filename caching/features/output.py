"""What is cached of the model as a whole: its velocity, a weighted sum of velocities, or what all blocks add."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from caching.attention import Triple
from caching.models.state import State
from caching.predict.multistep import MultistepPredictor, Row
from caching.predict.taylor import TaylorPredictor


class OutputFeature:
    """The velocity itself: a sparse step does not touch the model."""

    keeps_all = False  # whether it learns from dense steps that no sparse step follows, too

    def __init__(self, adapter: Any, order: int) -> None:
        self.adapter = adapter
        self.taylor = TaylorPredictor(order)

    def run(self, time: float, state: State, *, keep: bool) -> State:
        """A dense step's way through the blocks; `keep` says whether sparse steps follow."""
        return run_blocks(self.adapter, state)

    def observe(self, time: float, before: State, after: State, velocity: Tensor) -> None:
        """End a dense step: its states around the blocks, and its velocity `[B, N, P]`."""
        self.taylor.observe(time, self.value(before, after, lambda: velocity))

    def settle(self, velocity: Tensor) -> Tensor:
        """What a dense step answers, given the velocity that it found."""
        return velocity

    def sparse(self, time: float, embed: Callable[[], State]) -> Tensor:
        """The velocity `[B, N, P]` of a sparse step; `embed` gives the state before the blocks, if it is needed."""
        return self.answer(self.taylor.predict(time), embed)

    def value(self, before: State, after: State, velocity: Callable[[], Tensor]) -> Tensor:
        """What is cached of any tokens, `[B, N, C]`, from their states around the blocks and their velocity."""
        return velocity()

    def answer(self, value: Tensor, embed: Callable[[], State]) -> Tensor:
        """The velocity that belongs to a cached value."""
        return value

    def hear(self, layer: int, image: Triple, text: Triple, outputs: tuple[Tensor, Tensor]) -> None:
        """Take note of a layer's attention in a dense step: queries, keys and values, and what came out."""

    def detach(self) -> None:
        """Leave the model as it was."""

    @property
    def cache_bytes(self) -> int:
        return self.taylor.cache_bytes


class FittedOutput(OutputFeature):
    """The velocity as a weighted sum of all dense ones, the same in every step of a stage, the dense one too."""

    keeps_all = True

    def __init__(self, adapter: Any, weights: tuple[Row, ...]) -> None:
        super().__init__(adapter, order=0)
        self.multistep = MultistepPredictor(weights)

    def observe(self, time: float, before: State, after: State, velocity: Tensor) -> None:
        self.multistep.observe(velocity)

    def settle(self, velocity: Tensor) -> Tensor:
        return self.multistep.predict()

    def sparse(self, time: float, embed: Callable[[], State]) -> Tensor:
        return self.multistep.predict()

    @property
    def cache_bytes(self) -> int:
        return self.multistep.cache_bytes


class StackFeature(OutputFeature):
    """What the blocks together add to the tokens `[B, N, D]`; embedding and head stay fresh."""

    def value(self, before: State, after: State, velocity: Callable[[], Tensor]) -> Tensor:
        return after.tokens - before.tokens

    def answer(self, value: Tensor, embed: Callable[[], State]) -> Tensor:
        state = embed()
        return self.adapter.head(State(state.tokens + value, state.text, state.modulation, state.rotary))


def run_blocks(adapter: Any, state: State, blocks: range | None = None) -> State:
    """Run every block of the model, or those named."""
    for index in range(adapter.num_blocks) if blocks is None else blocks:
        state = adapter.run(index, state)
    return state


def added(before: State, after: State) -> tuple[Tensor, Tensor]:
    """What lies between two states, of tokens and text."""
    return after.tokens - before.tokens, after.text - before.text


def add(state: State, added: tuple[Tensor, ...]) -> State:
    tokens, text = added
    return State(state.tokens + tokens, state.text + text, state.modulation, state.rotary)
