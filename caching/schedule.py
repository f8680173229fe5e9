"""When a denoising step is dense: the first axis of a recipe."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Interval:
    """One dense step, then `every - 1` sparse ones (the interval N of FORA, TaylorSeer and ResCa)."""

    every: int = 6

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"interval must be at least 1, not {self.every}")

    def num_steps(self, asked: int) -> int:
        """The steps that are sampled where `asked` would be without a method."""
        return asked

    def dense(self, num_steps: int) -> tuple[bool, ...]:
        """For each step, whether every token is computed; step 0 always is."""
        return tuple(step % self.every == 0 for step in range(num_steps))


@dataclass(frozen=True, kw_only=True)
class FewerSteps(Interval):
    """No cache, but longer steps: as few as `Interval` would make dense."""

    def num_steps(self, asked: int) -> int:
        return -(-asked // self.every)

    def dense(self, num_steps: int) -> tuple[bool, ...]:
        return (True,) * num_steps
