"""The small picture of a video or image that a gallery shows until somebody wants more.

Legend: F frames of a piece, H height, W width.
"""

import io
from collections.abc import Iterator

import numpy as np
from PIL import Image

MOST_BYTES = 15_000
LONGEST_SIDE, SHORTEST_SIDE = 480, 16
QUALITIES = (75, 55, 35, 15)
BIG_BYTES = 100_000  # of an image that is worth a small one beside it


class OneFrame:
    """Passes on pieces of frames `[F, H, W, 3]`, and keeps the frame number `place`, once it has come by."""

    def __init__(self, frames: Iterator[np.ndarray], place: int) -> None:
        self._frames, self._place = frames, place
        self.frame: np.ndarray | None = None

    def __iter__(self) -> Iterator[np.ndarray]:
        number = 0
        for piece in self._frames:
            if number <= self._place < number + len(piece):
                self.frame = piece[self._place - number].copy()
            number += len(piece)
            yield piece


def poster(frame: np.ndarray) -> bytes:
    """A WebP of less than 15 kB of a frame (uint8, `[H, W, 3]`); the smaller, the more there is to see in it.

    Raises OSError where Pillow cannot write one.
    """
    image, side = Image.fromarray(frame), LONGEST_SIDE
    while True:
        small = image.copy()
        small.thumbnail((side, side), Image.Resampling.LANCZOS)
        for quality in QUALITIES:
            if len(data := _webp(small, quality)) < MOST_BYTES or side <= SHORTEST_SIDE:
                return data
        side //= 2


def _webp(image: Image.Image, quality: int) -> bytes:
    memory = io.BytesIO()
    try:
        image.save(memory, format="WEBP", quality=quality)
    except KeyError as error:  # Pillow was built without it.
        raise OSError("this Pillow writes no WebP") from error
    return memory.getvalue()
