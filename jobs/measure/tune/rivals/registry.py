"""The nearest published work beside the plans of `resca tune`, each fitted to the same calibration prompts."""

from collections.abc import Callable

from caching.recipe.recipe import Recipe
from jobs.measure.tune.rivals.budcache import budcache
from jobs.measure.tune.rivals.dpcache import dpcache
from jobs.measure.tune.rivals.l2p import l2p
from jobs.measure.tune.rollout import Rollouts

RIVALS: dict[str, Callable[[Rollouts, int], Recipe]] = {"l2p": l2p, "budcache": budcache, "dpcache": dpcache}
