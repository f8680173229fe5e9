"""A method's steps by how much of the blocks they compute, and what the passes of ResCa's proxies cost.

Where guidance takes two passes a step, there are two of each. On a GPU a pass of proxies takes as long as the host
needs to launch its kernels, however many ranks share the video.
"""

from functools import lru_cache
from typing import NamedTuple

from caching.recipe.recipe import Recipe
from caching.recipe.tokens import TrajectoryMedoids
from jobs.models.numbers import Numbers

# Estimates, not yet measured: 4,300 kernels of HunyuanVideo's 60 blocks take 40 ms to launch, and an H100 reaches 40%
# of its peak in a dense step.
BLOCK_LAUNCH_S = 0.04 / 60
DENSE_FLOPS_PER_S = 4e14
TYPICAL_STEPS = 50


def seconds_of_a_proxy_pass(model: Numbers) -> float:
    """Seconds of a pass on a GPU."""
    return model.blocks * BLOCK_LAUNCH_S


class Passes(NamedTuple):
    """A video's steps, by how much of the blocks they compute."""

    dense: int
    sparse: int
    some_tokens: int
    """Sparse ones in which some tokens go through the blocks: of ResCa those with proxies."""


@lru_cache(maxsize=256)  # once a number of steps, not once a video
def count_passes(method: Recipe, num_steps: int) -> Passes:
    """How many there are; ResCa has no proxies before the second dense step."""
    plan, tokens = method.dense_plan(num_steps), method.tokens
    num_dense = num_proxied = since = 0
    for dense in plan:
        num_dense, since = (num_dense + 1, 0) if dense else (num_dense, since + 1)
        if not dense and num_dense > 1 and isinstance(tokens, TrajectoryMedoids):
            num_proxied += since % tokens.every == 0
    num_sparse = len(plan) - num_dense
    every_one = tokens is not None and not isinstance(tokens, TrajectoryMedoids)
    return Passes(dense=num_dense, sparse=num_sparse, some_tokens=num_sparse if every_one else num_proxied)


def most_ranks_beside_proxies(method: Recipe, model: Numbers, tokens: int) -> float:
    """As many ranks as leave dense steps at least as long as the passes, which more of them do not make faster."""
    if not isinstance(method.tokens, TrajectoryMedoids):
        return float("inf")
    passes = count_passes(method, TYPICAL_STEPS)
    if not passes.some_tokens:
        return float("inf")
    dense_s = passes.dense * model.step_flops(tokens) / DENSE_FLOPS_PER_S
    return dense_s / (passes.some_tokens * seconds_of_a_proxy_pass(model))
