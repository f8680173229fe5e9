"""What a batch is made of: what all of it is asked for, its items, and the sidecar that says what a finished one is."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from caching.recipe.recipe import Recipe
from jobs.errors import BadInput
from jobs.store.medium import MEDIA, MediumName, file_of

SLUG_LENGTH = 40
CHECKPOINTS = "checkpoints"  # the folder of running videos' states, by id
POSTER = "webp"  # the suffix of small pictures
ATTEMPTS = "attempts"  # the folder of files that are not published yet
SIDECAR_VERSION = 2  # 1 does not say so itself
VERSIONED = ("torch", "diffusers", "transformers", "xfuser", "ray")  # what a sidecar names with its version
JOB = "RESCA_JOB"  # the variable by which a driver knows the Ray job that it is
# Safe in a file name on every system, and in a shell.
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
# As safe; of a file, with or without the suffix that it has in any case.
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
Priority = Annotated[int, Field(ge=-1000, le=1000)]
# What decides the pixels. The number of GPUs does not (clusters are made by logical shards), nor does the model's name:
# its revision is a commit or a hash of its files.
DECIDING = (
    *("prompt", "seed", "height", "width", "num_frames", "fps"),
    *("steps", "guidance", "guidance_2", "true_cfg_scale", "negative_prompt"),
    *("revision", "method", "dtype", "vae_dtype", "variant", "attention", "weights"),
)
FP8 = "fp8"  # how weights are kept where they are not in the model's number format


class RenderItem(BaseModel):
    """One video or image to render, beside what its batch has in common: what the driver sends to every rank of a gang.

    `method`, by its name, `guidance`, `negative_prompt` and `fps` are its own, where it has any; `output` is what its
    files are called, `export_as` what an export calls it instead of by its prompt. Those of a higher `priority`, which
    is 0 where it is not said, are begun before others.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: Id
    prompt: str
    seed: int
    height: int
    width: int
    num_frames: int
    steps: int
    method: str | None = None
    guidance: float | None = None
    negative_prompt: str | None = None
    fps: int | None = None
    priority: Priority | None = None
    output: FileName | None = None
    export_as: str | None = None

    @property
    def name(self) -> str:
        """The name of its files below the output directory, without the suffix; images, too, lie in `videos`."""
        return f"videos/{stem_of(self.output) if self.output else video_name(self.id, self.prompt, self.seed)}"

    @property
    def sidecar(self) -> str:
        """The JSON that is written last, so that its presence means the rest is there."""
        return f"{self.name}.json"

    @property
    def latents(self) -> str:
        """The final latents, where they are kept."""
        return f"{self.name}.safetensors"

    @property
    def poster(self) -> str:
        """The small picture that the gallery shows first."""
        return f"{self.name}.{POSTER}"


class BatchSettings(BaseModel):
    """What is asked of every item of a batch: the model, how it is sampled, and where the files go."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    revision: str
    method: Recipe
    methods: dict[str, Recipe] = {}
    """Those that items name as their own."""
    dtype: str
    vae_dtype: str | None = None
    """Of the VAE, where it is not `dtype`."""
    variant: str | None = None
    attention: str | None = None  # None for the fastest exact kernel that there is
    weights: str | None = None
    """How those of transformer and text encoders are kept, where it is not in `dtype`."""
    medium: MediumName = "video"
    fps: int | None = None
    """None of images."""
    guidance: float
    guidance_2: float | None = None
    true_cfg_scale: float | None = None
    negative_prompt: str | None = None
    out: str
    save_latents: bool

    def file(self, item: RenderItem) -> str:
        """The MP4 or PNG; the sidecar and the latents lie beside it."""
        return file_of(item.name, self.medium)

    def fps_of(self, item: RenderItem) -> int | None:
        """Frames a second of an item; None of images."""
        return self.fps if item.fps is None else item.fps

    def recipe(self, name: str | None) -> Recipe:
        """That of items which name this method as their own; of those that name none, the batch's."""
        return self.method if name is None else self.methods[name]

    def asked(self, item: RenderItem) -> dict[str, Any]:
        """All that is asked of an item: its own, and what the batch has in common; of the method all of its recipe."""
        return {**self._common, **item.model_dump(exclude_none=True), "method": self._described[item.method]}

    def deciding(self, item: RenderItem) -> dict[str, object]:
        """What decides an item's pixels; what is None was not asked, and earlier versions do not name it."""
        asked = self.asked(item)
        return {name: asked[name] for name in DECIDING if asked[name] is not None}

    def fingerprint(self, item: RenderItem) -> str:
        """A hash of everything that decides an item's pixels."""
        return hashlib.sha256(json.dumps(self.deciding(item), sort_keys=True).encode()).hexdigest()

    @cached_property
    def _common(self) -> dict[str, object]:
        return self.model_dump(exclude={"method", "methods"})

    @cached_property
    def _described(self) -> dict[str | None, dict[str, object]]:
        return {name: self.recipe(name).describe() for name in (None, *self.methods)}


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

    cfg: int = 1
    ulysses: int
    ring: int
    world_size: int


class Sidecar(BaseModel):
    """What a finished video or image is and what it cost. FLOPs count a multiply-add as 2; `flops_full` has no caching.

    `cut_tokens` are those at the prompt's end that the model had no room for; None where that was not known. `poster`
    says that a small picture lies beside it.
    Those of other versions are read, too: a field that is added gets a default, and fields that a newer version may
    have are passed over.
    """

    model_config = ConfigDict(extra="ignore")

    version: int = 1
    id: str
    prompt: str
    seed: int
    model: str
    revision: str
    method: dict[str, object]
    height: int
    width: int
    num_frames: int
    medium: MediumName = "video"
    fps: int | None = None
    steps: int
    dense_steps: int
    sparse_steps: int
    flops: float
    flops_full: float
    seconds: Seconds
    layout: World
    device: str
    dtype: str
    vae_dtype: str | None = None
    variant: str | None = None
    attention: str | None = None
    weights: str | None = None
    guidance: float
    guidance_2: float | None = None
    true_cfg_scale: float | None = None
    negative_prompt: str | None = None
    versions: dict[str, str]
    sha256: str
    bytes: int
    fingerprint: str
    cut_tokens: int | None = None
    output: str | None = None
    export_as: str | None = None
    poster: bool = False

    @property
    def text(self) -> str:
        """As it is written beside its file."""
        return f"{self.model_dump_json(indent=2)}\n"


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


def stem_of(output: str) -> str:
    """A name of one's own without the suffix of a video or image."""
    suffixes = (f".{medium.suffix}" for medium in MEDIA.values())
    return next((output.removesuffix(suffix) for suffix in suffixes if output.endswith(suffix)), output)


def check_names(items: Sequence[RenderItem]) -> None:
    """Raises BadInput if two items would be written to the same file."""
    seen: dict[str, RenderItem] = {}
    for item in items:
        other = seen.setdefault(item.name.casefold(), item)
        if other is not item:
            raise BadInput(f"items {other.id!r} and {item.id!r} would both be written to {item.name}")
