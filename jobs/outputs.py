"""Where videos land, the sidecar that says what each one is, and whether one is finished."""

import hashlib
import json
import re
import tempfile
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from jobs.errors import BadInput
from jobs.video import publish, sha256

SLUG_LENGTH = 40
# What decides the pixels. The number of GPUs does not (clusters are made by logical shards), nor does the model's name:
# its revision is a commit or a hash of its files.
DECIDING = (
    *("prompt", "seed", "height", "width", "num_frames", "fps"),
    *("steps", "guidance", "revision", "method", "dtype"),
)


class RenderItem(BaseModel):
    """One video to render, complete: what the driver sends to every rank of a gang."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    prompt: str
    seed: int
    height: int
    width: int
    num_frames: int
    fps: int
    steps: int
    guidance: float
    model: str
    revision: str
    method: dict[str, Any]
    dtype: str
    gangs: int
    out: str
    save_latents: bool

    @property
    def fingerprint(self) -> str:
        """A hash of everything that decides the pixels."""
        deciding = self.model_dump(mode="json", include=set(DECIDING))
        return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()

    @property
    def video(self) -> Path:
        """The MP4; the sidecar and the latents lie beside it."""
        return Path(self.out) / "videos" / f"{video_name(self.id, self.prompt, self.seed)}.mp4"

    @property
    def sidecar(self) -> Path:
        """The JSON that is written last, so that its presence means the rest is there."""
        return self.video.with_suffix(".json")

    @property
    def latents(self) -> Path:
        """The final latents, where they are kept."""
        return self.video.with_suffix(".safetensors")


class Seconds(BaseModel):
    """Seconds by stage; encoding was done once for all ranks."""

    encode: float
    denoise: float
    decode: float
    write: float

    @property
    def total(self) -> float:
        """From prompt to file."""
        return self.encode + self.denoise + self.decode + self.write


class World(BaseModel):
    """How the ranks were laid out."""

    ulysses: int
    ring: int
    world_size: int
    gangs: int


class Sidecar(BaseModel):
    """What a finished video is and what it cost. FLOPs count a multiply-add as 2; `flops_full` has no caching."""

    model_config = ConfigDict(extra="forbid")

    id: str
    prompt: str
    seed: int
    model: str
    revision: str
    method: dict[str, Any]
    height: int
    width: int
    num_frames: int
    fps: int
    steps: int
    dense_steps: int
    sparse_steps: int
    flops: float
    flops_full: float
    seconds: Seconds
    layout: World
    dtype: str
    guidance: float
    versions: dict[str, str]
    sha256: str
    bytes: int
    fingerprint: str


def slug(prompt: str) -> str:
    """A prompt as lower-case ASCII words joined by hyphens, at most 40 characters; `video` if nothing is left."""
    ascii_text = unicodedata.normalize("NFKD", prompt).encode("ascii", "ignore").decode().lower()
    words = re.findall(r"[a-z0-9]+", ascii_text)
    short = "-".join(words)[: SLUG_LENGTH + 1]
    if len(short) > SLUG_LENGTH:
        short = short.rpartition("-")[0] or short[:SLUG_LENGTH]
    return short or "video"


def video_name(item_id: str, prompt: str, seed: int) -> str:
    """The file name without its suffix."""
    return f"{item_id}-{slug(prompt)}-s{seed}"


def write_sidecar(sidecar: Sidecar, path: Path) -> None:
    """Write a sidecar; call it after its video is in place."""
    write_text(path, sidecar.model_dump_json(indent=2) + "\n")


def finished(item: RenderItem) -> Sidecar | None:
    """The sidecar of an item that need not be rendered again; None if anything is missing, changed or damaged."""
    try:
        sidecar = Sidecar.model_validate_json(item.sidecar.read_text(encoding="utf-8"))
        intact = sidecar.fingerprint == item.fingerprint and sha256(item.video) == sidecar.sha256
    except (OSError, ValidationError, UnicodeDecodeError):
        return None
    return sidecar if intact and (not item.save_latents or item.latents.is_file()) else None


def check_names(items: Sequence[RenderItem]) -> None:
    """Raises BadInput if two items would be written to the same file."""
    seen: dict[str, RenderItem] = {}
    for item in items:
        other = seen.setdefault(item.video.name.casefold(), item)
        if other is not item:
            raise BadInput(f"items {other.id!r} and {item.id!r} would both be written to {item.video}")


def check_writable(path: Path, what: str) -> None:
    """Raises BadInput if the directory `path` neither is writable nor could be made. Leaves nothing behind."""
    place = path.absolute()
    while not place.exists():
        place = place.parent
    if not place.is_dir():
        raise BadInput(f"{what} {path} cannot be written: {place} is not a directory")
    try:
        # Permission bits do not tell: root passes them, read-only and virtual file systems refuse in spite of them.
        tempfile.TemporaryDirectory(prefix=".resca-", dir=place).cleanup()
    except OSError as error:
        raise BadInput(f"{what} {path} cannot be written: {error.strerror} in {place}") from error


def write_text(path: Path, text: str) -> None:
    """Write a small file so that it is either whole or as it was."""
    partial = path.with_name(f".{path.name}.part")
    try:
        partial.write_text(text, encoding="utf-8")
        publish(partial, path)
    finally:
        partial.unlink(missing_ok=True)
