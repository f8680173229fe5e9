"""How a VAE's tiles are shared out, and what the rank with the most of them has to decode."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product

TEMPORAL = 4  # frames of a latent frame


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """A VAE whose tiles, `side` pixels wide and high, begin every `stride` pixels.

    `slab` are the latent frames that are decoded at once and those from one such piece to the next, which also has the
    next one's first; None where a tile has all of a video's frames.
    """

    pixel_flops: float
    """FLOPs of a pixel of a tile's frames, as if in 16 bits: in float32 a GPU takes twice as long for one."""
    side: int = 256
    stride: int = 192
    slab: tuple[int, int] | None = None

    @classmethod
    def of(cls, pipeline: str, pixel_flops: float) -> "Decoder":
        """That of a pipeline as diffusers publishes it, with its VAE's own tiles."""
        return replace(DECODERS.get(pipeline, cls(pixel_flops=1.0)), pixel_flops=pixel_flops)

    def tiles(self, height: int, width: int, num_frames: int) -> Iterator[int]:
        """The pixels of each tile, in the order in which they are decoded."""
        pieces = list(self._pieces((num_frames - 1) // TEMPORAL + 1))
        if max(height, width) <= self.side:
            yield from (frames * height * width for frames in pieces)
            return
        rows, columns = (self._sides(side) for side in (height, width))
        yield from (frames * down * right for frames, down, right in product(pieces, rows, columns))

    def flops(self, height: int, width: int, num_frames: int, num_ranks: int) -> float:
        """Of the rank that has the most to decode; tiles are dealt out in turns."""
        return self.pixel_flops * _most(self, height, width, num_frames, num_ranks)

    def _pieces(self, latent_frames: int) -> Iterator[int]:
        """The frames of each piece of time."""
        length, stride = self.slab or (latent_frames, latent_frames)
        if latent_frames <= length:
            yield TEMPORAL * (latent_frames - 1) + 1
            return
        for start in range(0, latent_frames, stride):
            latents = min(length + 1, latent_frames - start)
            if start == 0 or latents > 1:
                yield TEMPORAL * (latents - 1) + 1

    def _sides(self, side: int) -> list[int]:
        return [min(self.side, side - start) for start in range(0, side, self.stride)]


DECODERS = {"HunyuanVideoPipeline": Decoder(pixel_flops=1.0, slab=(4, 3))}


@lru_cache(maxsize=4096)
def _most(decoder: Decoder, height: int, width: int, num_frames: int, num_ranks: int) -> int:
    tiles = list(decoder.tiles(height, width, num_frames))
    return max(sum(tiles[first::num_ranks]) for first in range(min(num_ranks, len(tiles))))
