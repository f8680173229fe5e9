"""What a scheduler keeps from step to step, and loops that begin in the middle with it, or are gone without a model."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)
from torch import Tensor

from caching.state_dict import StateDict
from jobs.errors import BadInput

KEPT: dict[type[SchedulerMixin], tuple[str, ...]] = {
    FlowMatchEulerDiscreteScheduler: (),
    DDIMScheduler: (),
    DPMSolverMultistepScheduler: ("model_outputs", "lower_order_nums"),
    UniPCMultistepScheduler: ("model_outputs", "timestep_list", "lower_order_nums", "last_sample", "this_order"),
}


def check_solver(scheduler: SchedulerMixin) -> None:
    """Raises BadInput for a scheduler whose state between steps is not known, or depends on chance."""
    config: Any = getattr(scheduler, "config", {})
    by_chance = config.get("stochastic_sampling") or str(config.get("algorithm_type")).startswith("sde")
    if type(scheduler) not in KEPT or by_chance or config.get("solver_p"):
        names = " or ".join(kind.__name__ for kind in KEPT)
        raise BadInput(
            f"checkpoints need the scheduler {names}, neither stochastic nor with another one inside, not "
            f"{type(scheduler).__name__} as it is set here"
        )


def state_of(scheduler: SchedulerMixin) -> StateDict:
    """What the next steps of a loop go by, beside the latents; the tensors are the scheduler's own."""
    return {name: getattr(scheduler, name) for name in KEPT[type(scheduler)]}


@contextmanager
def begun(scheduler: Any, done: int, state: StateDict) -> Iterator[None]:
    """In the block, a pipeline's loop begins after the `done` first steps, with the state that they have left.

    Pipelines set the timesteps, take them all, and set the index to begin with; schedulers count on having them all,
    but for those without an index, which go by each timestep alone.
    """
    if not done:
        yield
        return
    set_timesteps, set_begin_index = scheduler.set_timesteps, getattr(scheduler, "set_begin_index", None)
    whole: list[Any] = []

    @wraps(set_timesteps)  # pipelines look at its signature
    def set_the_rest(*args: Any, **named: Any) -> None:
        set_timesteps(*args, **named)
        whole[:] = [scheduler.timesteps]
        scheduler.timesteps = scheduler.timesteps[done:]

    def begin_with_the_rest(_index: int = 0) -> None:
        assert set_begin_index is not None
        (scheduler.timesteps,) = whole
        set_begin_index(done)
        vars(scheduler).update(state)

    own = {"set_timesteps": set_the_rest, **({"set_begin_index": begin_with_the_rest} if set_begin_index else {})}
    vars(scheduler).update(own)
    try:
        yield
    finally:
        for name in own:
            delattr(scheduler, name)


class Solver:
    """A scheduler's own steps of one video, from the first one on, by velocities that are given to it."""

    def __init__(self, scheduler: Any) -> None:
        """`scheduler` has its timesteps set, and is left as it is. Raises BadInput if `check_solver` does."""
        check_solver(scheduler)
        self.scheduler, self.done = _own(scheduler), 0

    def fork(self) -> "Solver":
        """One that goes on from here on its own."""
        other = copy.copy(self)
        other.scheduler = _own(self.scheduler)
        return other

    def advance(self, latents: Tensor, velocity: Tensor, *, to: int) -> Tensor:
        """The latents before step `to`, or at the end, if the velocity stays as it is; both of one shape."""
        while self.done < to:
            timestep = self.scheduler.timesteps[self.done]
            latents = self.scheduler.step(velocity, timestep, latents, return_dict=False)[0]
            self.done += 1
        return latents


def _own(scheduler: Any) -> Any:
    """A scheduler whose state is no other's."""
    new = copy.copy(scheduler)
    for name, value in state_of(scheduler).items():
        setattr(new, name, list(value) if isinstance(value, list) else value)
    return new
