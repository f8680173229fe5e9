"""What a model makes, videos or images: how each becomes a file, and what is looked at before it counts.

Legend: F frames of a piece, F of an image 1, H height, W width.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:  # what a family makes is said without reading what makes it
    import numpy as np

MediumName = Literal["video", "image"]
Size = tuple[int, int, int]  # frames, height and width
Facts = Mapping[str, str]  # what a file says of itself: prompt, seed, method, model and fingerprint


class Medium(Protocol):
    """One of the two. Files are written whole or not at all."""

    name: MediumName
    """As settings and sidecars have it; also what one of them is called."""

    suffix: str
    """Of its files."""

    remedy: str
    """What helps where none can be made."""

    def write(self, frames: "Iterator[np.ndarray]", path: Path, fps: int | None, facts: Facts) -> str:
        """Write pieces of frames (uint8, `[F, H, W, 3]`), all of which are asked for, and give the file's sha256.

        MachineError where this machine cannot, OSError where the file cannot be written.
        """
        ...

    def size(self, path: Path) -> Size:
        """What a decoder sees that has read the whole file. OSError for one that does not decode."""
        ...

    def smallest(self) -> bytes:
        """A file that was written and read here. MachineError where that fails."""
        ...


class Video:
    """An MP4."""

    name: MediumName = "video"
    suffix = "mp4"
    remedy = "pip install --force-reinstall imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE to an ffmpeg with libx264"

    def write(self, frames: "Iterator[np.ndarray]", path: Path, fps: int | None, facts: Facts) -> str:
        from jobs.store.mp4 import write_video

        assert fps is not None  # each model of videos has a number of its own
        return write_video(frames, path, fps, {"title": facts["prompt"], "comment": facts["fingerprint"]})

    def size(self, path: Path) -> Size:
        from jobs.store.mp4 import probe

        seen = probe(path)
        return seen.num_frames, seen.height, seen.width

    def smallest(self) -> bytes:
        from jobs.store.mp4 import encode_two_frames

        return encode_two_frames()[0]


class Image:
    """A PNG, whose one frame is the image."""

    name: MediumName = "image"
    suffix = "png"
    remedy = "give the folder for temporary files room, or name another one as TMPDIR"

    def write(self, frames: "Iterator[np.ndarray]", path: Path, fps: int | None, facts: Facts) -> str:
        from jobs.store.png import write_image

        return write_image(frames, path, facts)

    def size(self, path: Path) -> Size:
        from jobs.store.png import probe

        return (1, *probe(path))

    def smallest(self) -> bytes:
        from jobs.store.png import encode_one_frame

        return encode_one_frame()


VIDEO, IMAGE = Video(), Image()
MEDIA: Mapping[MediumName, Medium] = MappingProxyType({each.name: each for each in (VIDEO, IMAGE)})


def file_of(name: str, medium: MediumName) -> str:
    """The file of this name without a suffix."""
    return f"{name}.{MEDIA[medium].suffix}"
