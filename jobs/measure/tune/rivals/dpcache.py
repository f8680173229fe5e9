"""DPCache: places of dense steps by dynamic programming over measured costs (Cui et al., CVPR 2026).

A stage costs what its sparse steps miss in full sampling, summed. A line through two dense steps predicts them, so that
the cost depends on the dense step before the stage, too: the tensor of costs has three dimensions.

Legend: T steps, C channels, F frames, H height, W width.
"""

from math import inf

import torch
from torch import Tensor

from caching.recipe.recipe import Recipe, Taylor
from caching.recipe.schedule import Places
from jobs.measure.tune.places import Steps
from jobs.measure.tune.rollout import Rollouts

PART = 1 << 20  # values that are multiplied at a time


def dpcache(rollouts: Rollouts, budget: int) -> Recipe:
    """The dense steps on the cheapest path, and lines through the last two of them, step by step as TaylorSeer's."""
    costs = stage_costs(rollouts.full_velocities, [float(step) for step in range(rollouts.steps)])
    schedule = Places(dense=cheapest_path(costs, budget), steps=rollouts.steps)
    return Recipe(name=f"dpcache-{budget}", schedule=schedule, predictor=Taylor(order=1, axis="step"))


def stage_costs(velocities: list[Tensor], times: list[float]) -> Tensor:
    """What a stage from dense step `i` to `j` costs after a dense step `h`, at `[h, i, j]` of `[T, T, T + 1]`.

    It is the sum of the errors (root mean square) of its sparse steps, on average of the prompts. At `[0, 0, j]` the
    first dense step stands alone, and is reused; what cannot be is infinite.

    Args:
        velocities: for each prompt, what the model says at each step of full sampling `[T, C, F, H, W]`.
        times: what the lines are drawn over.
    """
    errors = sum(prediction_errors(each, torch.tensor(times, dtype=torch.float64)) for each in velocities)
    assert isinstance(errors, Tensor)
    step = torch.arange(len(times) + 1)
    before, dense, end = step[:-1, None, None], step[None, :-1, None], step[None, None, :]
    sparse = torch.where(end[..., :-1] > dense, errors / len(velocities), 0.0)
    costs = torch.cat([torch.zeros_like(sparse[..., :1]), sparse.cumsum(-1)], dim=-1)
    possible = (end > dense) & ((before < dense) | ((before == 0) & (dense == 0)))
    return torch.where(possible, costs, inf)


def prediction_errors(velocities: Tensor, times: Tensor) -> Tensor:
    """How wrong the line through steps `h` and `i` is at step `s`, at `[h, i, s]` of `[T, T, T]`; reuse if `h` is `i`.

    All follow from the products of velocities with each other; small differences of these are wanted, so in float64.
    """
    rows = velocities.flatten(1)
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for part in rows.split(PART, dim=1):
        gram += part.double() @ part.double().T / rows.shape[1]
    h, i, s = (torch.arange(len(times)).view(shape) for shape in ((-1, 1, 1), (1, -1, 1), (1, 1, -1)))
    span = torch.where(h == i, inf, times[i] - times[h])
    back = -(times[s] - times[i]) / span  # the weight of step h
    ahead = 1 - back
    squares = gram[s, s] + ahead**2 * gram[i, i] + back**2 * gram[h, h]
    squares = squares + 2 * (ahead * back * gram[h, i] - ahead * gram[i, s] - back * gram[h, s])
    return squares.clamp(min=0).sqrt()


def cheapest_path(costs: Tensor, budget: int) -> Steps:
    """The `budget` dense steps, the first of them step 0, whose stages cost least together.

    ValueError if there are not so many steps.
    """
    num_steps = costs.shape[0]
    if not 1 <= budget <= num_steps:
        raise ValueError(f"between 1 and {num_steps} of {num_steps} steps can be dense, not {budget}")
    least = torch.full((num_steps, num_steps), inf, dtype=costs.dtype)  # of all paths that end with dense steps h and i
    least[0, 0] = 0.0
    came_from: list[Tensor] = []
    for _ in range(budget - 1):
        least, before = (least[:, :, None] + costs[:, :, :-1]).min(dim=0)
        came_from.append(before)
    last = int((least + costs[:, :, -1]).argmin())
    before, place = divmod(last, num_steps)
    path = [place]
    for table in reversed(came_from):
        path.append(before)
        before, place = int(table[before, place]), before
    return tuple(reversed(path))
