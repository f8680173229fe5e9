"""What each method costs on a full-size model, counted without weights, as rows of a table."""

from typing import TypedDict

from rich.console import Console

from caching.flops import Cost
from caching.recipe.recipe import RECIPES, Recipe
from jobs.console import under_way
from jobs.measure.full_size import Request
from jobs.measure.published import published


class CostRow(TypedDict):
    """One method; `paper_tflops` is the paper's figure for this very setting, `sent_bytes` is of each rank."""

    method: str
    dense_steps: int
    sparse_steps: int
    tflops: float
    flops_ratio: float
    paper_tflops: float | None
    cache_bytes: int
    sent_bytes: int | None
    recipe: dict[str, object]


def count_costs(request: Request, console: Console) -> list[CostRow]:
    """One row a method; `console` is told how far it is."""
    one = request.count(RECIPES["full"], num_steps=1).flops
    rows: list[CostRow] = []
    for method in request.methods:
        with under_way(console, f"counting {method.name} ({len(rows) + 1} of {len(request.methods)})"):
            cost, sent = request.count(method), _sent_bytes(request, method)
        paper_tflops = published(request.model, method) if request.at_papers_size else None
        rows.append(_row(method, cost, request.num_steps * one, paper_tflops, sent))
    return rows


def _sent_bytes(request: Request, method: Recipe) -> int | None:
    """What each rank sends in the denoising loop; None for a method that works on one rank only."""
    if request.layout.world_size == 1:
        return 0
    try:
        _, group = request.send(method)
    except ValueError:
        return None
    return sum(int(row["bytes_sent"]) for row in group.counter.rows())


def _row(method: Recipe, cost: Cost, full_flops: float, paper_tflops: float | None, sent_bytes: int | None) -> CostRow:
    return {
        "method": method.name,
        "dense_steps": cost.dense_steps,
        "sparse_steps": cost.sparse_steps,
        "tflops": round(cost.flops / 1e12, 2),
        "flops_ratio": round(full_flops / cost.flops, 3),
        "paper_tflops": paper_tflops,
        "cache_bytes": cost.cache_bytes,
        "sent_bytes": sent_bytes,
        "recipe": method.describe(),
    }
