"""The tables of ResCa (Fang et al., CVPR 2026) and its supplement that say what methods cost."""

from dataclasses import replace

from caching.recipe.recipe import RECIPES, Recipe, recipe
from caching.recipe.tokens import TrajectoryMedoids
from jobs.measure.papers.tables import Figure, Table, every

PAPER = "ResCa"


def by_features(method: Recipe) -> Recipe:
    """Clusters by the features of one step alone."""
    assert isinstance(method.tokens, TrajectoryMedoids)
    return replace(method, tokens=replace(method.tokens, history=1))


HUNYUAN_VIDEO = Table(
    paper=PAPER,
    number="Table S1 (HunyuanVideo)",
    model="hunyuanvideo",
    figures=(
        Figure(label="50 steps", value=29_773.0, stated=RECIPES["full"], reason="From the paper's Table 1."),
        Figure(label="feature-based", value=5382.9, stated=by_features(recipe("resca", interval=6, clusters=32))),
        Figure(label="trajectory-based", value=5383.2, stated=recipe("resca", interval=6, clusters=32)),
    ),
)
WITH_7, FOUND_7 = recipe("resca", interval=7, clusters=16), every("resca", 7, first=3, clusters=16)
NINE = "The figure is that of 9 dense steps: the first 3, as in TaylorSeer's code, and then each seventh."
FLUX = Table(
    paper=PAPER,
    number="Table S1 (FLUX.1-dev)",
    model="flux",
    figures=(
        Figure(label="feature-based", value=675.0, stated=by_features(WITH_7), found=by_features(FOUND_7), reason=NINE),
        Figure(label="trajectory-based", value=675.1, stated=WITH_7, found=FOUND_7, reason=NINE),
        Figure(
            label="N = 8, O = 1, K = 16 (Figure S1)",
            stated=recipe("resca", interval=8, clusters=16),
            reason="The setting of the ablation of alpha_S, which gives no FLOPs.",
        ),
    ),
)
MERGING = Table(
    paper=PAPER,
    number="Table S3",
    model="dit",
    unit="latency",
    remark="The paper gives seconds, here are FLOPs, and settings are those of the methods' own papers.",
    figures=(
        Figure(label="DDIM-50 steps", value=1.00, stated=RECIPES["full"]),
        Figure(label="ToMeSD", value=1.46, found=RECIPES["tomesd"]),
        Figure(label="AT-EDM", value=1.48, found=RECIPES["at-edm"]),
        Figure(label="SDTM", value=1.58, found=RECIPES["sdtm"]),
        Figure(label="ResCa-IE", value=1.83, found=RECIPES["resca"]),
    ),
)
