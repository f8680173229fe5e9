"""Seconds of a video by stage."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import torch

T = TypeVar("T")


@dataclass
class Stopwatch:
    """Seconds by stage; work on a GPU is waited for."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str):
        """Time the block."""
        started = time.perf_counter()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def over(self, name: str, pieces: Iterator[T]) -> Iterator[T]:
        """The same pieces; the time that they take to make counts for the stage."""
        while True:
            with self.stage(name):
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece
