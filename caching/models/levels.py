"""Noise levels that differ from token to token, in models that are told each token's (Wan 2.2 TI2V).

Legend: B batch, N tokens.
"""

from collections.abc import Callable

from torch import Tensor

from caching.models.adapter import Inputs


def with_levels(inputs: Inputs, pick: Callable[[Tensor], Tensor]) -> Inputs:
    """The inputs with those noise levels that `pick` takes of the tokens' `[B, N]`; as they are with one for all."""
    timestep = inputs.get("timestep")
    if timestep is None or timestep.ndim < 2:
        return inputs
    return {**inputs, "timestep": pick(timestep)}
