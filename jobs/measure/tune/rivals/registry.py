"""The nearest published work beside the plans of `resca tune`, each fitted to the same calibration prompts."""

from collections.abc import Callable
from dataclasses import dataclass

from caching.recipe.recipe import Recipe
from jobs.measure.tune.rivals.budcache import ANNEALED, POLISHED, budcache
from jobs.measure.tune.rivals.dpcache import dpcache
from jobs.measure.tune.rivals.l2p import l2p
from jobs.measure.tune.rollout import Rollouts


@dataclass(frozen=True, kw_only=True)
class Rival:
    """How the plan with a budget of dense steps is found, and the dense steps that this takes a prompt, at most.

    The latter follow from the steps of a video and the budget.
    """

    search: Callable[[Rollouts, int], Recipe]
    cost: Callable[[int, int], int]


RIVALS = {
    "l2p": Rival(search=l2p, cost=lambda steps, budget: steps),
    "budcache": Rival(search=budcache, cost=lambda steps, budget: (ANNEALED + POLISHED) * budget),
    "dpcache": Rival(search=dpcache, cost=lambda steps, budget: steps),
}
