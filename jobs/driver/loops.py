"""The denoising loops of a batch, and how much work each is."""

from collections.abc import Callable
from dataclasses import dataclass

from caching.recipe.recipe import Recipe
from jobs.driver.batch_plan import Plan
from jobs.models.facts import ModelFacts
from jobs.request.passes import count_passes
from jobs.store.items import RenderItem


@dataclass(frozen=True, kw_only=True)
class Loops:
    """The denoising loops of a batch: what decides how much work each is.

    `num_passes` are those of each step of an item: 2 where a second one guides.
    """

    facts: ModelFacts
    method_of: Callable[[RenderItem], Recipe]
    num_passes: Callable[[RenderItem], int]

    def work(self, item: RenderItem) -> float:
        """About the FLOPs of the dense steps of an item's loop."""
        num_tokens = self.facts.num_tokens(item.height, item.width, item.num_frames)
        num_dense = count_passes(self.method_of(item), item.steps).dense
        return num_dense * self.num_passes(item) * self.facts.step_flops(num_tokens)


def loops_of(plan: Plan) -> Loops:
    """Those of a batch's items."""
    return Loops(facts=plan.facts, method_of=plan.method_of, num_passes=plan.num_passes)
