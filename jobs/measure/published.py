"""What papers say that methods cost on full-size models, and why ours may differ."""

from collections.abc import Sequence

from caching.recipe.recipe import Recipe
from caching.recipe.schedule import Interval

# TFLOPs in the tables of ResCa (S1 and 1) and DuCa (II), by (model, method, interval, order, clusters).
PUBLISHED = {
    ("hunyuanvideo", "full", 1, None, None): 29_773.0,
    ("hunyuanvideo", "resca", 6, 1, 32): 5_383.2,
    ("flux", "full", 1, None, None): 3_719.50,
    ("flux", "resca", 7, 1, 16): 675.1,
    ("flux", "fora", 3, 0, None): 1_320.07,
    ("flux", "toca", 5, 0, None): 1_126.76,
    ("flux", "duca", 4, 0, None): 1_190.24,
    ("flux", "duca", 5, 0, None): 1_078.34,
    ("flux", "duca", 6, 0, None): 917.32,
    ("flux", "delta-dit", 2, 0, None): 2_480.01,
    ("flux", "delta-dit", 6, 0, None): 1_686.76,
}
# Why a paper's figure and ours differ, where they do, or where the paper calls the same setting otherwise.
NOTES = {
    ("flux", "fora"): "FORA's figure is met by 17 dense steps and 33 that compute the attention's output projection in "
    "the 19 double-stream blocks, 1.68 TFLOPs each; here these outputs are cached after the projection.",
    ("flux", "resca"): "ResCa's figure, given for N = 7, is that of 9 dense steps: the first 3, as in TaylorSeer's "
    "code, and then each seventh (in a recipe file: schedule: {kind: interval, every: 7, first: 3}; 680.2).",
    ("flux", "toca"): "ToCa's figure, given for N = 4, is that of 3 dense steps and then an interval of 5.",
    (
        "flux",
        "duca",
    ): "DuCa's figures are met, within 1.5%, by turns: even (the aggressive step first), as its Table VI "
    "describes it; its text has the conservative step first, as here.",
    ("flux", "delta-dit"): "Delta-DiT's figure given for N = 3 is that of 9 dense steps, an interval of 6.",
}


def published(model: str, method: Recipe) -> float | None:
    """The paper's TFLOPs for a setting, if it has one."""
    full = method.name == "full"
    every = method.schedule.every if isinstance(method.schedule, Interval) else None
    clusters = method.tokens.num_clusters or None if method.tokens else None
    order = None if full else method.predictor.order
    return PUBLISHED.get((model, method.name, every, order, clusters))


def notes_on(model: str, methods: Sequence[Recipe]) -> list[str]:
    """What must be known to compare these methods' figures with those of their papers."""
    return [note for method in methods if (note := NOTES.get((model, method.name)))]
