"""What is cached of the model as a whole: its velocity, what all blocks add, or the velocities of all dense steps.

Legend: B batch, N local tokens, P values of a patch, C channels of what is cached.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Generic, TypeVar

from torch import Tensor

from caching.features.feature import Follower
from caching.models.adapter import Adapter, run_blocks
from caching.models.state import State
from caching.predict.chebyshev import ChebyshevPredictor
from caching.predict.multistep import MultistepPredictor
from caching.predict.taylor import TaylorPredictor
from caching.recipe.predictor import Chebyshev, Multistep
from caching.recipe.recipe import Recipe
from caching.site import Site
from caching.state_dict import StateDict
from caching.step import Step


class OutputFeature:
    """The velocity itself: a sparse step does not touch the model."""

    def __init__(self, recipe: Recipe, adapter: Adapter, site: Site) -> None:
        self.adapter = adapter
        self.taylor = TaylorPredictor(recipe.predictor.order)

    def dense(self, step: Step, *, keep: bool) -> Tensor:
        after = run_blocks(self.adapter, step.before)
        velocity = step.velocity(after)
        if keep:
            self.taylor.observe(step.time, self.value(step.before, after, lambda: step.in_sigma(velocity)))
        return velocity

    def follow(self, step: Step, velocity: Tensor, *, keep: bool) -> Tensor:
        if keep:
            self.taylor.observe(step.time, step.in_sigma(velocity))
        return velocity

    def sparse(self, step: Step) -> Tensor:
        return self.answer(self.taylor.predict(step.time), step)

    def value(self, before: State, after: State, velocity: Callable[[], Tensor]) -> Tensor:
        """What is cached of any tokens, `[B, N, C]`, from states around the blocks and the velocity in sigma."""
        return velocity()

    def answer(self, value: Tensor, step: Step) -> Tensor:
        """What the model would give `[B, N, P]` where the cached value is this."""
        return step.as_given(value)

    def detach(self) -> None:
        self.taylor.forget()

    @property
    def follower(self) -> Follower | None:
        return self

    @property
    def cache_bytes(self) -> int:
        return self.taylor.cache_bytes

    def state_dict(self) -> StateDict:
        return {"taylor": self.taylor.state_dict()}

    def load_state_dict(self, state: StateDict) -> None:
        self.taylor.load_state_dict(state["taylor"])


class StackFeature(OutputFeature):
    """What the blocks together add to the tokens `[B, N, D]`; embedding and head stay fresh."""

    @property
    def follower(self) -> None:
        """None: it needs the tokens."""

    def value(self, before: State, after: State, velocity: Callable[[], Tensor]) -> Tensor:
        return after.tokens - before.tokens

    def answer(self, value: Tensor, step: Step) -> Tensor:
        state = step.before
        return self.adapter.head(State(state.tokens + value, state.text, state.modulation, state.rotary))


Summing = TypeVar("Summing", bound=ChebyshevPredictor | MultistepPredictor)


class DenseOutputs(ABC, Generic[Summing]):
    """The velocities of all dense steps so far, in a predictor that makes sums of them."""

    adapter: Adapter
    predictor: Summing

    def dense(self, step: Step, *, keep: bool) -> Tensor:
        return self.follow(step, step.velocity(run_blocks(self.adapter, step.before)), keep=keep)

    @abstractmethod
    def follow(self, step: Step, velocity: Tensor, *, keep: bool) -> Tensor: ...

    @abstractmethod
    def sparse(self, step: Step) -> Tensor: ...

    def detach(self) -> None:
        self.predictor.forget()

    @property
    def follower(self) -> Follower:
        return self

    @property
    def cache_bytes(self) -> int:
        return self.predictor.cache_bytes

    def state_dict(self) -> StateDict:
        return self.predictor.state_dict()

    def load_state_dict(self, state: StateDict) -> None:
        self.predictor.load_state_dict(state)


class FittedOutput(DenseOutputs[MultistepPredictor]):
    """The velocity as a weighted sum of all dense ones, the same in every step of a stage, the dense one too."""

    def __init__(self, recipe: Recipe, adapter: Adapter, site: Site) -> None:
        assert isinstance(recipe.predictor, Multistep)
        of_models = recipe.predictor.of_models
        if site.model >= len(of_models):
            raise ValueError(f"{recipe.name} has weights for one model, and here another one takes over from it")
        self.adapter, self.predictor = adapter, MultistepPredictor(of_models[site.model])

    def follow(self, step: Step, velocity: Tensor, *, keep: bool) -> Tensor:
        """Dense steps that no sparse one follows count, too."""
        self.predictor.observe(step.in_sigma(velocity))
        return self.sparse(step)

    def sparse(self, step: Step) -> Tensor:
        return step.as_given(self.predictor.predict())


class ForecastOutput(DenseOutputs[ChebyshevPredictor]):
    """The velocity as a polynomial through all dense ones."""

    def __init__(self, recipe: Recipe, adapter: Adapter, site: Site) -> None:
        settings = recipe.predictor
        assert isinstance(settings, Chebyshev)
        span = (0.0, 1.0) if settings.axis == "sigma" else (0.0, float(site.num_steps))
        self.adapter, self.predictor = adapter, ChebyshevPredictor(settings.degree, settings.ridge, span)

    def follow(self, step: Step, velocity: Tensor, *, keep: bool) -> Tensor:
        if keep:
            self.predictor.observe(step.time, step.in_sigma(velocity))
        return velocity

    def sparse(self, step: Step) -> Tensor:
        return step.as_given(self.predictor.predict(step.time))
