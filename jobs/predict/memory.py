"""What the fullest rank needs of its device at full size, from what `resca memory` has counted at three settings."""

from collections.abc import Iterator
from dataclasses import dataclass

from jobs.predict.counted import LOOPS, WEIGHTS, LoopPoint
from jobs.predict.shape import Video
from parallel.layout import Layout

GIB = 2**30
# Taken to be left to CUDA itself, to NCCL's buffers, to the decoding of tiles and to gaps in memory.
RESERVE_BYTES = 3 * GIB


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """Where weights are kept, and by which options."""

    offload: bool = False
    shard_weights: bool = False

    @property
    def words(self) -> str:
        """The options, as `render` takes them."""
        return " ".join(f"--{name.replace('_', '-')}" for name, is_on in vars(self).items() if is_on)


def keepings(layout: Layout) -> Iterator[Keeping]:
    """The cheapest first."""
    yield Keeping()
    yield Keeping(offload=True)
    if layout.world_size > 1:
        yield Keeping(shard_weights=True)
        yield Keeping(offload=True, shard_weights=True)


def need_bytes(model: str, video: Video, layout: Layout, keeping: Keeping) -> float | None:
    """At the fullest moment, with what is left to others; None for a model or method that was not counted."""
    points = LOOPS.get(model, {}).get(video.method.name)
    if points is None:
        return None
    weights, encoding = weight_bytes(model, layout.world_size, keeping)
    return max(weights + _loop(points, video.num_tokens, layout.sequence_size), encoding) + RESERVE_BYTES


def weight_bytes(model: str, num_ranks: int, keeping: Keeping) -> tuple[float, float]:
    """Those on rank 0 during the loop, and while a prompt is encoded."""
    counted = WEIGHTS[model]
    ranks, gathered = (num_ranks, counted.gathered) if keeping.shard_weights else (1, 0)
    transformers, text = [each / ranks for each in counted.transformers], counted.text / ranks
    if not keeping.offload:
        everything = sum(transformers) + gathered + text + counted.vae
        return everything, everything
    stays = sum(transformers) if len(transformers) == 1 else 0  # several wait, too
    return max(transformers) + gathered, stays + gathered + text


def _loop(points: tuple[LoopPoint, LoopPoint, LoopPoint], num_tokens: int, num_ranks: int) -> float:
    """Activations and cache: a plane through what was counted on one rank, on several, and of a smaller video."""
    (tokens, _, on_one), (_, ranks, on_several), (fewer, _, of_smaller) = points
    of_local = (on_one - on_several) / (tokens - tokens / ranks)
    of_all = (on_one - of_smaller) / (tokens - fewer) - of_local
    return on_one + of_local * (num_tokens / num_ranks - tokens) + of_all * (num_tokens - tokens)
