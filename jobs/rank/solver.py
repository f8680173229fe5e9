"""What a scheduler keeps from step to step, and loops of a pipeline that begin in the middle with it."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler, SchedulerMixin, UniPCMultistepScheduler

from caching.state_dict import StateDict
from jobs.errors import BadInput

KEPT: dict[type[SchedulerMixin], tuple[str, ...]] = {
    FlowMatchEulerDiscreteScheduler: (),
    UniPCMultistepScheduler: ("model_outputs", "timestep_list", "lower_order_nums", "last_sample", "this_order"),
}


def check_solver(scheduler: SchedulerMixin) -> None:
    """Raises BadInput for a scheduler whose state between steps is not known, or depends on chance."""
    config: Any = getattr(scheduler, "config", {})
    if type(scheduler) not in KEPT or config.get("stochastic_sampling") or config.get("solver_p"):
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

    Pipelines set the timesteps, take them all, and set the index to begin with; schedulers count on having them all.
    """
    if not done:
        yield
        return
    set_timesteps, set_begin_index = scheduler.set_timesteps, scheduler.set_begin_index
    whole: list[Any] = []

    @wraps(set_timesteps)  # pipelines look at its signature
    def set_the_rest(*args: Any, **named: Any) -> None:
        set_timesteps(*args, **named)
        whole[:] = [scheduler.timesteps]
        scheduler.timesteps = scheduler.timesteps[done:]

    def begin_with_the_rest(_index: int = 0) -> None:
        (scheduler.timesteps,) = whole
        set_begin_index(done)
        vars(scheduler).update(state)

    scheduler.set_timesteps, scheduler.set_begin_index = set_the_rest, begin_with_the_rest
    try:
        yield
    finally:
        del scheduler.set_timesteps, scheduler.set_begin_index
