"""Real processes joined by gloo, which answer to functions: the ranks of the tests."""

import os
import traceback
from collections.abc import Callable
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Self

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from parallel.group import SequenceGroup
from parallel.layout import Layout

ANSWER_TIMEOUT_S = 150  # Importing xfuser takes most of it on a busy machine.
STDERR = 2


class Gang:
    """One process per rank, each with a `SequenceGroup` of the layout; `folder` is where they find each other.

    `layout` and `deadline_s` may be set to others, of as many ranks, at any time. The processes are forks of one that
    has imported what ranks need; where `before` is to run before anything is imported, they begin from nothing.
    """

    def __init__(
        self,
        layout: Layout,
        folder: Path,
        before: Callable[[], None] | None = None,
        *,
        engine: str = "xfuser",
        deadline_s: float = 60,
    ):
        context = mp.get_context("spawn" if before else "forkserver")
        if not before:
            context.set_forkserver_preload(["tests.parallel.preload"])
        self.layout, self.engine, self.deadline_s = layout, engine, deadline_s
        self._pipes, self._processes = [], []
        for rank in range(layout.world_size):
            ours, theirs = context.Pipe()
            stderr = Connection(os.dup(STDERR), readable=False)  # So that it is passed on; a fork has the server's.
            args = (theirs, stderr, rank, layout.world_size, folder / "rendezvous", before)
            process = context.Process(target=_serve, args=args, daemon=True)
            process.start()
            theirs.close()  # So that the death of a rank is seen at once.
            self._pipes.append(ours)
            self._processes.append(process)

    def run(self, function: Callable[..., Any], *args: Any) -> list[Any]:
        """`function(group, *args)` on every rank at once; what they return, in rank order."""
        self.send(function, *args)
        return [self.answer(rank) for rank in range(self.layout.world_size)]

    def send(self, function: Callable[..., Any], *args: Any) -> None:
        """Have every rank begin with `function(group, *args)`."""
        settings = {"engine": self.engine, "deadline_s": self.deadline_s}
        for pipe in self._pipes:
            pipe.send((self.layout, settings, function, args))

    def answer(self, rank: int) -> Any:
        """What a rank returns from what it was sent."""
        return _answer(self._pipes[rank])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.join()


def _answer(pipe: Connection) -> Any:
    assert pipe.poll(ANSWER_TIMEOUT_S), "a rank did not answer in time"
    value, error = pipe.recv()
    assert error is None, error
    return value


def _serve(
    pipe: Connection,
    stderr: Connection,
    rank: int,
    world_size: int,
    rendezvous: Path,
    before: Callable[[], None] | None,
) -> None:
    os.dup2(stderr.fileno(), STDERR)
    torch.set_num_threads(1)
    if before:
        before()
    timeout = timedelta(seconds=60)
    dist.init_process_group(
        "gloo", init_method=f"file://{rendezvous}", rank=rank, world_size=world_size, timeout=timeout
    )
    group, made_of = None, None
    while True:
        layout, settings, function, args = pipe.recv()
        try:
            if group is not None and made_of != (layout, settings):
                group.close()
                group = None
            group, made_of = group or SequenceGroup(layout, **settings), (layout, settings)
            pipe.send((function(group, *args), None))
        except Exception:  # Everything goes back to the test, which fails with it.
            pipe.send((None, traceback.format_exc()))
