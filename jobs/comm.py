"""`resca comm`: what each rank sends in a denoising loop, counted by running it on the meta device as one rank."""

from typing import Any

import torch

from caching.engine import Engine
from caching.flops import run_on_meta
from jobs.errors import BadInput
from jobs.flops import Size, read_request
from jobs.options import CommOptions
from jobs.progress import make_console, print_rows, write_rows
from parallel.imagined import ImaginedGroup
from parallel.layout import Layout


def run(options: CommOptions) -> int:
    """Print one row a method, bytes sent by each rank. Raises BadInput before anything is counted."""
    size, grid, methods = read_request(options)
    layout = _layout(options, size, grid)
    console, rows = make_console(), []
    for method in methods:
        with console.status(f"counting {method.name}"):
            group = ImaginedGroup(layout)
            try:
                engine = run_on_meta(
                    size.config,
                    method,
                    grid=grid,
                    num_text_tokens=size.num_text_tokens,
                    num_steps=options.steps,
                    dtype=torch.bfloat16,
                    group=group,
                )
            except ValueError as error:
                raise BadInput(f"method {method.name}: {error}") from error
        rows.append(make_row(method.name, engine, group))
    print_rows(console, rows)
    if options.json:
        write_rows(options.json, rows)
    return 0


def make_row(name: str, engine: Engine, group: ImaginedGroup) -> dict[str, Any]:
    """Bytes that one rank sends in a dense step, in a sparse step (the means), and in the whole loop."""
    sent = {row["step"]: int(row["bytes_sent"]) for row in group.ledger.rows()}
    return {
        "method": name,
        "dense_steps": engine.dense_steps,
        "sparse_steps": engine.sparse_steps,
        "dense_bytes": sent.get("dense", 0) // max(1, engine.dense_steps),
        "sparse_bytes": sent.get("sparse", 0) // max(1, engine.sparse_steps),
        "total_bytes": sum(sent.values()),
        "calls": sum(int(row["calls"]) for row in group.ledger.rows()),
    }


def _layout(options: CommOptions, size: Size, grid: tuple[int, int, int]) -> Layout:
    """Raises BadInput for degrees that do not divide heads or tokens."""
    heads = size.config.get("num_attention_heads", 24)
    try:
        layout = Layout(ulysses=options.ulysses, ring=options.ring)
        layout.check(heads=heads, tokens=grid[0] * grid[1] * grid[2])
    except ValueError as error:
        raise BadInput(str(error)) from error
    return layout
