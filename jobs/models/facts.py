"""What must be known of a model before it is loaded, from the JSON files of a diffusers directory or hub id."""

import hashlib
import json
import re
import struct
from dataclasses import dataclass, field
from math import lcm
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from jobs.errors import BadInput, InfrastructureError

PIPELINE = "HunyuanVideoPipeline"
DEMO = Path(__file__).parents[1] / "demo" / "model"
# diffusers' HunyuanVideoPipeline asks for this of height and width, whatever the VAE and patch sizes.
PIPELINE_MULTIPLE = 16
HUB_FILES = ("model_index.json", "transformer/config.json", "vae/config.json", "resca.json", "plans/*.yaml")
HUB_ID = re.compile(r"(?P<name>[\w][\w.-]*/[\w.-]+?)(@(?P<revision>[\w./-]+))?")
STORED_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
COMPONENTS = ("transformer", "vae", "text_encoder", "text_encoder_2")
LIBRARIES = ("diffusers", "transformers")
Dtype = Literal["float32", "bfloat16", "float16"]
Positive = Annotated[int, Field(ge=1)]


class GenerationDefaults(BaseModel):
    """What a video is like unless the user says otherwise: `resca.json` beside model_index.json, or HunyuanVideo's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    height: Positive = 720
    width: Positive = 1280
    num_frames: Positive = 129
    fps: Positive = 24
    steps: Positive = 50
    guidance: Annotated[float, Field(ge=0)] = 6.0
    dtype: Dtype | None = None
    prompt_template: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """The numbers of a HunyuanVideo pipeline that decide what can be rendered, and how to find it again."""

    name: str
    source: str
    revision: str
    heads: int
    width: int
    patch: int
    patch_t: int
    spatial: int
    temporal: int
    latent_channels: int
    guidance_embeds: bool
    dtype: str
    defaults: GenerationDefaults
    plans: dict[str, Path] = field(default_factory=dict)
    """Recipes that lie beside the model (`plans/NAME.yaml`), by name."""

    def check_size(self, height: int, width: int, num_frames: int) -> None:
        """Check a size in pixels and frames. Raises BadInput naming the nearest valid one."""
        nearest = self._nearest(height, width, num_frames)
        if nearest != (height, width, num_frames):
            raise BadInput(
                f"height {height}, width {width}, num_frames {num_frames} do not fit {self.name}: height and width "
                f"must be multiples of {self._pixels} and num_frames a multiple of {self._frames} plus "
                f"{self._first_frames}; nearest: height {nearest[0]}, width {nearest[1]}, num_frames {nearest[2]}"
            )

    def grid(self, height: int, width: int, num_frames: int) -> tuple[int, int, int]:
        """The tokens of a valid size, along (time, height, width)."""
        latent_frames = (num_frames - 1) // self.temporal + 1
        side = self.spatial * self.patch
        return latent_frames // self.patch_t, height // side, width // side

    def num_tokens(self, height: int, width: int, num_frames: int) -> int:
        """The latent tokens of a valid size."""
        t, h, w = self.grid(height, width, num_frames)
        return t * h * w

    @property
    def _pixels(self) -> int:
        return lcm(self.spatial * self.patch, PIPELINE_MULTIPLE)

    @property
    def _frames(self) -> int:
        return self.temporal * self.patch_t

    @property
    def _first_frames(self) -> int:
        """The fewest frames: the causal VAE gives the first latent to one frame, each other one to `temporal`."""
        return self.temporal * (self.patch_t - 1) + 1

    def _nearest(self, height: int, width: int, num_frames: int) -> tuple[int, int, int]:
        sides = [max(1, round(side / self._pixels)) * self._pixels for side in (height, width)]
        groups = max(0, round((num_frames - self._first_frames) / self._frames))
        return sides[0], sides[1], groups * self._frames + self._first_frames


def read_facts(model: str, *, own_code: bool = False) -> ModelFacts:
    """The facts of `demo`, of a local directory, or of a hub id (owner/name or owner/name@revision).

    With `own_code` the model may bring classes of its own; nothing of them is run here.

    Raises:
        BadInput: the model cannot be found or read, or is not a HunyuanVideo pipeline.
        InfrastructureError: the hub does not answer.
    """
    if model == "demo" or (model and Path(model).exists()):
        directory = DEMO if model == "demo" else Path(model)
        source = model if model == "demo" else str(directory.resolve())
        _read_json(directory / "model_index.json")
        _check_weights(directory)
        facts = _facts(model, source, _content_hash(directory), directory, _stored_dtype(directory / "transformer"))
    elif hub := HUB_ID.fullmatch(model):
        directory = _download(hub["name"], hub["revision"])
        facts = _facts(model, hub["name"], directory.name, directory, "bfloat16")
    else:
        raise BadInput(f"model {model} is neither demo, nor a directory, nor a hub id such as owner/name")
    if not own_code:
        _refuse_own_code(model, directory)
    return facts


def model_directory(source: str) -> str:
    """What `from_pretrained` takes for a facts' `source`; `demo` is found beside this package on each machine."""
    return str(DEMO) if source == "demo" else source


def _facts(name: str, source: str, revision: str, directory: Path, dtype: str) -> ModelFacts:
    index = _read_json(directory / "model_index.json")
    if index.get("_class_name") != PIPELINE:
        raise BadInput(f"model {name} is a {index.get('_class_name')}, not a {PIPELINE}")
    transformer = _read_json(directory / "transformer" / "config.json")
    vae = _read_json(directory / "vae" / "config.json")
    defaults = _read_defaults(directory / "resca.json")
    # A configuration may leave out what equals the default of its diffusers class.
    return ModelFacts(
        name=name,
        source=source,
        revision=revision,
        heads=transformer.get("num_attention_heads", 24),
        width=transformer.get("num_attention_heads", 24) * transformer.get("attention_head_dim", 128),
        patch=transformer.get("patch_size", 2),
        patch_t=transformer.get("patch_size_t", 1),
        guidance_embeds=transformer.get("guidance_embeds", True),
        spatial=vae.get("spatial_compression_ratio", 8),
        temporal=vae.get("temporal_compression_ratio", 4),
        latent_channels=vae.get("latent_channels", 16),
        dtype=defaults.dtype or dtype,
        defaults=defaults,
        plans={path.stem: path for path in sorted(directory.glob("plans/*.yaml"))},
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadInput(f"cannot read model file {path}: {error.strerror}") from error
    except ValueError as error:
        raise BadInput(f"model file {path} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise BadInput(f"model file {path} must hold a JSON object")
    return value


def _read_defaults(path: Path) -> GenerationDefaults:
    try:
        return GenerationDefaults.model_validate(_read_json(path) if path.exists() else {})
    except ValidationError as error:
        detail = error.errors()[0]
        raise BadInput(f"model file {path}: {'.'.join(map(str, detail['loc']))}: {detail['msg']}") from error


def _weights(component: Path) -> list[Path]:
    return sorted(component.glob("*.safetensors"))


def _check_weights(directory: Path) -> None:
    for component in COMPONENTS:
        if _weights(directory / component):
            continue
        pickles = [*(directory / component).glob("*.bin"), *(directory / component).glob("*.pt")]
        why = ": pickles such as .bin are never read, convert them to .safetensors" if pickles else ""
        raise BadInput(f"model directory {directory} has no weights in {component}/{why}")


def brings_its_class(component: Path) -> bool:
    """Whether a component's class is neither in diffusers nor in transformers, but in a file beside its weights."""
    index, config = _read_json(component.parent / "model_index.json"), component / "config.json"
    library = (index.get(component.name) or ["diffusers"])[0]
    return library not in LIBRARIES or (config.exists() and "auto_map" in _read_json(config))


def _refuse_own_code(name: str, directory: Path) -> None:
    for component in (*COMPONENTS, "tokenizer", "tokenizer_2", "scheduler"):
        if brings_its_class(directory / component):
            raise BadInput(f"model {name} needs code of its own for its {component}: --trust-remote-code would run it")


def _stored_dtype(component: Path) -> str:
    """The number format of the first tensor in the weights."""
    files = _weights(component)
    try:
        with files[0].open("rb") as file:
            header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        return STORED_DTYPES[next(entry["dtype"] for name, entry in header.items() if name != "__metadata__")]
    except (OSError, ValueError, KeyError, StopIteration, struct.error, MemoryError, OverflowError) as error:
        raise BadInput(f"cannot read the weights {files[0]}: not a whole .safetensors file of floats") from error


def _content_hash(directory: Path) -> str:
    """A revision for a local directory: equal for equal copies wherever they lie, cheap for tens of gigabytes."""
    digest = hashlib.sha256()
    kinds = {".json", ".safetensors", ".bin", ".model", ".txt", ".py"}
    for path in sorted(path for path in directory.glob("**/*") if path.suffix in kinds and path.is_file()):
        digest.update(f"{path.relative_to(directory).as_posix()} {path.stat().st_size}\n".encode())
        digest.update(_samples(path))
    return digest.hexdigest()[:16]


def _samples(path: Path, count: int = 32, length: int = 1 << 16) -> bytes:
    """Pieces of a file at even distances; all of it where it is small."""
    size = path.stat().st_size
    if size <= count * length:
        return path.read_bytes()
    with path.open("rb") as file:
        pieces = []
        for number in range(count):
            file.seek(number * (size - length) // (count - 1))
            pieces.append(file.read(length))
    return b"".join(pieces)


def _download(name: str, revision: str | None) -> Path:
    """The JSON files of a hub repository, in the local cache. The folder is named by the commit."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(HUB_FILES)))
    except (HFValidationError, RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise BadInput(f"model {name} at revision {revision or 'main'} is not on the hub, or is not public") from error
    except OSError as error:
        raise InfrastructureError(f"the hub does not answer for model {name}, and no local copy exists") from error
