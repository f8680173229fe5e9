"""L2P: weights of all dense outputs so far for each sparse step, at even places (Shen et al., CVPR 2026).

Fitted teacher-forced: what stands for a sparse step is compared with what the model says there in full sampling, from
what it says there at the dense steps. So no stage sees what the stages before it have done wrong. Published weights go
over what was predicted, too, which is a sum of dense outputs itself.
"""

from itertools import pairwise

import torch
from torch import Tensor

from caching.predict.multistep import Evidence, Row
from caching.recipe.recipe import Multistep, Recipe
from caching.recipe.schedule import Places, even_places
from jobs.measure.tune.places import Steps
from jobs.measure.tune.rollout import Rollouts


def l2p(rollouts: Rollouts, budget: int) -> Recipe:
    """Evenly placed dense steps with teacher-forced weights."""
    places = even_places(rollouts.steps, budget)
    ends = (*places[1:], rollouts.steps)
    weights = tuple(
        teacher_forced(rollouts.full_velocities, rollouts.levels, places[:number], end)
        for number, end in enumerate(ends, 1)
    )
    schedule = Places(dense=places, steps=rollouts.steps)
    return Recipe(name=f"l2p-{budget}", schedule=schedule, predictor=Multistep(weights=weights))


def teacher_forced(velocities: list[Tensor], levels: list[float], nodes: Steps, end: int) -> Row:
    """The weights of the stage from the last of the dense steps `nodes` to step `end`.

    The fit of a weighted mean is the mean of the fits, so one fit to the mean velocity of the stage stands for one fit
    a step, the dense step's own being itself. No sparse step looks at the latents: under Euler's steps the mean of the
    steps' weights, by their lengths, leads to the same latents. Other solvers it leads near to them.

    Args:
        velocities: for each prompt, what the model says at each step of full sampling `[T, C, F, H, W]`.
        levels: the noise level of each step, and where the last one ends.
    """
    stage = range(nodes[-1], end)
    spans = torch.tensor([after - before for before, after in pairwise(levels[stage.start : end + 1])])
    lengths = spans / spans.sum()
    wanted = [torch.tensordot(lengths.to(each), each[stage.start : end], dims=1) for each in velocities]
    reuse = (*[0.0] * (len(nodes) - 1), 1.0)
    dense = [[each[node] for node in nodes] for each in velocities]
    return Evidence.total([Evidence.of(*video, reuse) for video in zip(dense, wanted, strict=True)]).weights
