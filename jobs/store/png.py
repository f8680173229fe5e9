"""Write a PNG so that it is either whole or absent, and look at one that is there."""

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngImageFile, PngInfo

from jobs.store.faults import MachineError, writing
from jobs.store.files import publish, sha256

SIDE = 16


def write_image(frames: Iterable[np.ndarray], path: Path, facts: Mapping[str, str]) -> str:
    """Write the one frame (uint8) that the pieces `[F, H, W, 3]` hold, and return the file's sha256.

    The file appears under its name only when it is complete and on disk. `facts` are text chunks of it, in UTF-8.

    Raises:
        ValueError: there is another number of frames, or they are no bytes.
        OSError: the file cannot be written.
    """
    pixels = np.concatenate(list(frames))
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[0] != 1 or pixels.shape[3] != 3:
        raise ValueError(f"an image must be uint8 [1, H, W, 3], not {pixels.dtype} {list(pixels.shape)}")
    partial = path.with_name(f".{path.name}.part")
    try:
        Image.fromarray(pixels[0]).save(partial, format="PNG", pnginfo=_chunks(facts))
        digest = sha256(partial)
        publish(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return digest


def probe(path: Path) -> tuple[int, int]:
    """Decode the whole file; height and width. OSError for one that does not decode."""
    try:
        with PngImageFile(path) as image:  # not by Image.open, which refuses large images
            image.load()
            return image.height, image.width
    except (OSError, SyntaxError, ValueError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise OSError(f"{path} does not decode as an image") from error


def read_facts(path: Path) -> dict[str, str]:
    """What the text chunks of a file say."""
    with PngImageFile(path) as image:
        image.load()
        return {key: str(text) for key, text in image.text.items()}


def encode_one_frame() -> bytes:
    """A whole PNG that was decoded again. MachineError where that cannot be done."""
    what = "the folder for temporary files"
    with writing(what), tempfile.TemporaryDirectory(prefix="resca-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "image.png"
        write_image([np.zeros((1, SIDE, SIDE, 3), np.uint8)], path, {})
        if probe(path) != (SIDE, SIDE):
            raise MachineError("a PNG was not read as it was written")
        return path.read_bytes()


def _chunks(facts: Mapping[str, str]) -> PngInfo:
    chunks = PngInfo()
    for key, text in facts.items():
        chunks.add_itxt(key, text.encode(errors="replace").decode())  # what is half a character of UTF-16 has no bytes
    return chunks
