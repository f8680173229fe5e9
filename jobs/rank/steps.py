"""What of a loop counts: the steps of one transformer, as often as they are made."""

from dataclasses import dataclass

from caching.recipe.recipe import RECIPES, Recipe


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What one transformer does of a loop: the steps of a `span` of it, or all, so many times."""

    method: Recipe
    num: int
    dense: tuple[int, ...] | None = None
    span: range | None = None
    times: int = 1

    @property
    def of_later_passes(self) -> "Steps":
        """The same of a pass after the first one: dense steps alone, where sparse ones have one pass."""
        if not self.method.one_pass_when_sparse:
            return self
        planned = [step for step, dense in enumerate(self.method.dense_plan(self.num)) if dense]
        dense = [step for step in self.dense or planned if self.span is None or step in self.span]
        return Steps(method=RECIPES["full"], num=1, times=self.times * len(dense))
