"""Cross-attention on average over the passes of guidance, which makes their sparse steps one and the same (T-GATE)."""

from torch import Tensor

from caching.features.blocks import BlockFeature, Unit, cross_attentions_of
from caching.group import Group
from caching.models.adapter import Adapter
from caching.recipe.recipe import Recipe
from caching.site import Site
from caching.state_dict import StateDict
from caching.step import Step


class MeanUnit(Unit):
    """The outputs of a module on average over the passes of a step, in the memory of the first one's; order 0."""

    num_passes = 0  # of the present step, that are in it

    def observe(self, time: float, outputs: tuple[Tensor, ...]) -> None:
        if self.num_passes:
            pairs = zip(self.predict(time), outputs, strict=True)
            outputs = tuple(mean.mul_(self.num_passes).add_(each).div_(self.num_passes + 1) for mean, each in pairs)
        super().observe(time, outputs)
        self.num_passes += 1

    def join(self, group: Group, time: float) -> None:
        """Take the mean with what the other parts of the ranks have, of one pass each."""
        by_part = [group.exchange(output) for output in self.predict(time)]
        super().observe(time, tuple(sum(others, first).div_(group.num_parts) for first, *others in by_part))


class MeanCrossAttention(BlockFeature):
    """Attention to the text, kept for all passes together: those of a dense step are averaged, sparse steps reuse it.

    T-GATE (Zhang et al., "Cross-Attention Makes Inference Cumbersome in Text-to-Image Diffusion Models"). The text
    enters the blocks nowhere else, so that all passes of a sparse step are equal: one is all, and guidance has ended.
    """

    def __init__(self, recipe: Recipe, adapter: Adapter, site: Site) -> None:
        parts = cross_attentions_of(recipe, adapter)
        self.means = [MeanUnit(recipe.predictor.order) for _ in adapter.cross_attentions]
        super().__init__(adapter, recipe.predictor.order, parts, only_modules=True, part_units=self.means)
        self.group = site.group
        self.dense_at = 0  # the number of the last step in which a pass was dense
        self.is_joined = False  # whether all passes of that step are in the means, or those that were computed here

    def dense(self, step: Step, *, keep: bool) -> Tensor:
        if step.number != self.dense_at:
            for mean in self.means:
                mean.num_passes = 0
        self.dense_at, self.is_joined = step.number, self.group.num_parts == 1
        return super().dense(step, keep=keep)

    def sparse(self, step: Step) -> Tensor:
        if not self.is_joined:
            for mean in self.means:
                mean.join(self.group, step.time)
        self.is_joined = True
        return super().sparse(step)

    def state_dict(self) -> StateDict:
        return {**super().state_dict(), "is_joined": self.is_joined}

    def load_state_dict(self, state: StateDict) -> None:
        super().load_state_dict(state)
        self.is_joined = state["is_joined"]
