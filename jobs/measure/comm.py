"""What each rank sends in a denoising loop, counted by running it on the meta device as one rank."""

from typing import TypedDict

from rich.console import Console

from caching.engine import Engine
from jobs.console import under_way
from jobs.errors import BadInput
from jobs.measure.full_size import Request
from parallel.collectives import CollectiveCounter


class SentRow(TypedDict):
    """One method: bytes that one rank sends in a step of each kind (the means) and in the whole loop; to how many."""

    method: str
    dense_steps: int
    sparse_steps: int
    dense_bytes: int
    sparse_bytes: int
    total_bytes: int
    dense_peers: int
    sparse_peers: int


def count_sent(request: Request, console: Console) -> list[SentRow]:
    """One row a method; `console` is told how far it is. Raises BadInput for what cannot be counted."""
    rows: list[SentRow] = []
    for method in request.methods:
        with under_way(console, f"counting {method.name} ({len(rows) + 1} of {len(request.methods)})"):
            try:
                engine, group = request.send(method)
            except ValueError as error:
                raise BadInput(f"method {method.name}: {error}") from error
        rows.append(_row(method.name, engine, group.counter))
    return rows


def _row(name: str, engine: Engine, counter: CollectiveCounter) -> SentRow:
    booked = counter.rows()
    sent = {row["step"]: int(row["bytes_sent"]) for row in booked}
    peers = {row["step"]: int(row["peers"]) for row in booked}
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
