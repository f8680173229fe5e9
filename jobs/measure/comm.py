"""What each rank sends in a denoising loop, counted by running it on the meta device as one rank."""

from typing import Any

from rich.console import Console

from caching.engine import Engine
from jobs.errors import BadInput
from jobs.measure.full_size import Request
from parallel.collectives import CollectiveCounter


def count_sent(request: Request, console: Console) -> list[dict[str, Any]]:
    """One row a method. Raises BadInput for what cannot be counted."""
    rows = []
    for method in request.methods:
        with console.status(f"counting {method.name}"):
            try:
                engine, group = request.send(method)
            except ValueError as error:
                raise BadInput(f"method {method.name}: {error}") from error
        rows.append(make_row(method.name, engine, group.counter))
    return rows


def make_row(name: str, engine: Engine, counter: CollectiveCounter) -> dict[str, Any]:
    """Bytes that one rank sends in a dense step, in a sparse step (the means), and in the whole loop; to how many."""
    booked = counter.rows()
    sent = {row["step"]: int(row["bytes_sent"]) for row in booked}
    peers = {row["step"]: row["peers"] for row in booked}
    return {
        "method": name,
        "dense_steps": engine.dense_steps,
        "sparse_steps": engine.sparse_steps,
        "dense_bytes": sent.get("dense", 0) // max(1, engine.dense_steps),
        "sparse_bytes": sent.get("sparse", 0) // max(1, engine.sparse_steps),
        "total_bytes": sum(sent.values()),
        "dense_peers": peers.get("dense", 0),
        "sparse_peers": peers.get("sparse", 0),
    }
