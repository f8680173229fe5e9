"""Passes of ResCa's proxies through a model's blocks; where guidance takes two passes a step, there are two of each.

On a GPU a pass takes as long as the host needs to launch its kernels, however many ranks share the video.
"""

from functools import lru_cache

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


@lru_cache(maxsize=256)  # once a number of steps, not once a video
def count_proxy_passes(method: Recipe, num_steps: int) -> tuple[int, int]:
    """A video's dense steps, and the sparse ones that compute proxies; there are none before the second dense step."""
    num_dense = num_proxied = since = 0
    for dense in method.dense_plan(num_steps):
        num_dense, since = (num_dense + 1, 0) if dense else (num_dense, since + 1)
        if not dense and num_dense > 1 and isinstance(method.tokens, TrajectoryMedoids):
            num_proxied += since % method.tokens.every == 0
    return num_dense, num_proxied


def most_ranks_beside_proxies(method: Recipe, model: Numbers, tokens: int) -> float:
    """As many ranks as leave dense steps at least as long as the passes, which more of them do not make faster."""
    if not isinstance(method.tokens, TrajectoryMedoids):
        return float("inf")
    num_dense, num_proxied = count_proxy_passes(method, TYPICAL_STEPS)
    if not num_proxied:
        return float("inf")
    dense_s = num_dense * model.step_flops(tokens) / DENSE_FLOPS_PER_S
    return dense_s / (num_proxied * seconds_of_a_proxy_pass(model))
