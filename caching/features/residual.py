"""The velocity less the latents, EasyCache's transformation vector, and how much the velocity changes with them.

Legend: B batch, N local tokens, P values of a patch of latents.
"""

from torch import Tensor
from torch.nn import functional as F

from caching.features.output import OutputFeature
from caching.models.adapter import Adapter, run_blocks
from caching.predict.rate import TransformationRate
from caching.recipe.recipe import Recipe
from caching.site import Site
from caching.state_dict import StateDict
from caching.step import Step


class ResidualFeature(OutputFeature):
    """What the model adds to the latents `[B, N, P]`."""

    def dense(self, step: Step, *, keep: bool) -> Tensor:
        return self.follow(step, step.velocity(run_blocks(self.adapter, step.before)), keep=keep)

    def follow(self, step: Step, velocity: Tensor, *, keep: bool) -> Tensor:
        if keep:
            self.taylor.observe(step.time, velocity - self.latents(step))
        return velocity

    def answer(self, value: Tensor, step: Step) -> Tensor:
        return value + self.latents(step)

    def latents(self, step: Step) -> Tensor:
        """Those of the patches, in the velocity's number format and as many values.

        What stands beside latents comes after them; so does what a model says of its variance, where they have zeros.
        They are negative where the velocity is.
        """
        values = self.adapter.velocity_values
        latents = self.adapter.output_sign * step.patches[..., :values].float()
        return F.pad(latents, (0, values - latents.shape[-1]))


class WatchedResidual(ResidualFeature):
    """The same, for a schedule that goes by the changes of the output."""

    def __init__(self, recipe: Recipe, adapter: Adapter, site: Site) -> None:
        super().__init__(recipe, adapter, site)
        self.rate = TransformationRate(site.group)

    def follow(self, step: Step, velocity: Tensor, *, keep: bool) -> Tensor:
        if keep:
            self.rate.observe(self.latents(step), velocity)
        return super().follow(step, velocity, keep=keep)

    def expected_change(self, step: Step) -> float:
        """Of the output since the last step, relative to it."""
        return self.rate.expected(self.latents(step), step.number)

    def detach(self) -> None:
        super().detach()
        self.rate.forget()

    @property
    def cache_bytes(self) -> int:
        return super().cache_bytes + self.rate.cache_bytes

    def state_dict(self) -> StateDict:
        return {**super().state_dict(), "rate": self.rate.state_dict()}

    def load_state_dict(self, state: StateDict) -> None:
        super().load_state_dict(state)
        self.rate.load_state_dict(state["rate"])
