"""`resca flops`: what each method costs on a full-size model, counted without weights."""

from typing import Any

from caching.flops import Cost, count
from caching.recipe.recipe import RECIPES, Recipe
from jobs.console import make_console, print_rows, write_rows
from jobs.measure.full_size import DTYPE, Request, read_request
from jobs.options.measure import FlopsOptions

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
    ("flux", "toca"): "ToCa's figure, given for N = 4, is that of 3 dense steps and then an interval of 5.",
    (
        "flux",
        "duca",
    ): "DuCa's figures are met, within 1.5%, by turns: even (the aggressive step first), as its Table VI "
    "describes it; its text has the conservative step first, as here.",
    ("flux", "delta-dit"): "Delta-DiT's figure given for N = 3 is that of 9 dense steps, an interval of 6.",
}


def run(options: FlopsOptions) -> int:
    """Print one row a method. Raises BadInput before anything is counted."""
    request = read_request(options)
    size, grid, steps, console = request.size, request.grid, request.num_steps, make_console()
    common: dict[str, Any] = dict(grid=grid, num_text_tokens=size.num_text_tokens, dtype=DTYPE)
    one = count(size.config, RECIPES["full"], num_steps=1, **common).flops
    at_size = steps == 50 and grid == size.grid(size.height, size.width, size.num_frames)
    rows = []
    for method in request.methods:
        with console.status(f"counting {method.name}"):
            cost = count(size.config, method, num_steps=steps, **common)
            sent = _sent_bytes(request, method)
        rows.append(make_row(method, cost, steps * one, published(options.model, method) if at_size else None, sent))
        console.print(f"{len(rows)}/{len(request.methods)}: {method.name} {rows[-1]['tflops']} TFLOPs", style="dim")
    print_rows(console, rows)
    for method in request.methods:
        if note := NOTES.get((options.model, method.name)):
            console.print(note, style="dim")
    if options.json:
        write_rows(options.json, rows)
    return 0


def _sent_bytes(request: Request, method: Recipe) -> int | None:
    """What each rank sends in the denoising loop; None for a method that works on one rank only."""
    if request.layout.world_size == 1:
        return 0
    try:
        _, group = request.send(method)
    except ValueError:
        return None
    return sum(int(row["bytes_sent"]) for row in group.counter.rows())


def make_row(
    method: Recipe, cost: Cost, full_flops: float, seed_tflops: float | None, sent_bytes: int | None
) -> dict[str, Any]:
    """One row of the table; `seed_tflops` is the paper's figure for this very setting, `sent_bytes` is of each rank."""
    return {
        "method": method.name,
        "dense_steps": cost.dense_steps,
        "sparse_steps": cost.sparse_steps,
        "tflops": round(cost.flops / 1e12, 2),
        "flops_ratio": round(full_flops / cost.flops, 3),
        "paper_tflops": seed_tflops,
        "cache_bytes": cost.cache_bytes,
        "sent_bytes": sent_bytes,
        "recipe": method.describe(),
    }


def published(model: str, method: Recipe) -> float | None:
    """The paper's TFLOPs for a setting, if it has one."""
    full = method.name == "full"
    every = getattr(method.schedule, "every", None)
    clusters = getattr(method.tokens, "clusters", None)
    order = None if full else method.predictor.order
    return PUBLISHED.get((model, method.name, every, order, clusters))
