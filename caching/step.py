"""One step of a generation, as a pass of the model sees it.

Legend: B batch, N local tokens, P values of a patch.
"""

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from caching.models.adapter import Adapter, Inputs
from caching.models.levels import epsilon_of_velocity, velocity_of_epsilon
from caching.models.state import State
from caching.site import Site


class Step:
    """What goes into a pass in one step.

    Args:
        number: counted from 1.
        sigma: the noise level.
        time: the coordinate that derivatives are taken by, sigma or the step index.
        span: by which the noise level moves.
        patches: of the local tokens `[B, N, P]`.
        inputs: what else the transformer's forward takes, the text without padding, levels of tokens of the local ones.
    """

    def __init__(
        self,
        adapter: Adapter,
        site: Site,
        *,
        number: int,
        sigma: float,
        time: float,
        span: float,
        patches: Tensor,
        inputs: Inputs,
    ) -> None:
        self.adapter, self.site = adapter, site
        self.number, self.sigma, self.time, self.span = number, sigma, time, span
        self.patches, self.inputs = patches, inputs

    @cached_property
    def before(self) -> State:
        """The state before the first block, made when it is first asked for; blocks then attend to all tokens."""
        state = self.adapter.embed(self.patches, self.site.rotary, self.inputs, grid=self.site.grid)
        self.site.attend_to_all(state.text.shape[1])
        return state

    def velocity(self, after: State) -> Tensor:
        """What the state after the last block says, as patches `[B, N, P]` in float32, as latents are moved by it."""
        return self.adapter.head(after).float()

    def in_sigma(self, given: Tensor, patches: Tensor | None = None) -> Tensor:
        """What the model gives of the local tokens, or of those with these patches, as a velocity in sigma `[B, N, P]`.

        The very tensor if it is one; epsilon says as much, exactly, with the latents that it was given for.
        """
        return self._converted(velocity_of_epsilon, given, self.patches if patches is None else patches)

    def as_given(self, velocity: Tensor) -> Tensor:
        """The inverse of `in_sigma`, for the latents as they are now."""
        return self._converted(epsilon_of_velocity, velocity, self.patches)

    def _converted(self, convert: Callable[[Tensor, Tensor, float], Tensor], values: Tensor, patches: Tensor) -> Tensor:
        if not self.adapter.predicts_epsilon:
            return values
        epsilon, variance = values.tensor_split([patches.shape[-1]], dim=-1)
        return torch.cat([convert(epsilon, patches.float(), self.sigma), variance], dim=-1)
