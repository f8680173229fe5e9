"""What must be known of a model before it is loaded, from the JSON files of a diffusers directory or hub id."""

import hashlib
import json
import os
import re
import struct
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError

from jobs.errors import BadInput, InfrastructureError
from jobs.models.family import MOST_TOKENS, Family, GenerationDefaults, Json, Numbers
from jobs.models.registry import FAMILIES
from jobs.store.documents import first_problem, read_object

DEMO = Path(__file__).parents[1] / "demo" / "model"
HUB_FILES = (
    *("model_index.json", "transformer/config.json", "vae/config.json", "tokenizer/tokenizer.json"),
    *("resca.json", "plans/*.yaml"),
)
HUB_ID = re.compile(r"(?P<name>[\w][\w.-]*/[\w.-]+?)(@(?P<revision>[\w./-]+))?")
STORED_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
LIBRARIES = ("diffusers", "transformers")


@dataclass(frozen=True, kw_only=True)
class ModelFacts(Numbers):
    """The numbers of a model that decide what can be rendered, and how to find it again."""

    name: str
    source: str
    revision: str
    dtype: str
    directory: Path
    """Where its small files are on this machine."""
    defaults: GenerationDefaults
    plans: dict[str, Path] = field(default_factory=dict)
    """Recipes that lie beside the model (`plans/NAME.yaml`), by name."""

    def check_size(self, height: int, width: int, num_frames: int) -> None:
        """Check a size in pixels and frames. Raises BadInput, naming the nearest valid one, or for too many tokens."""
        nearest = self.nearest(height, width, num_frames)
        if nearest != (height, width, num_frames):
            raise BadInput(
                f"height {height}, width {width}, num_frames {num_frames} do not fit {self.name}: height and width "
                f"must be multiples of {self.pixels} and num_frames a multiple of {self.frames} plus "
                f"{self.first_frames}; nearest: height {nearest[0]}, width {nearest[1]}, num_frames {nearest[2]}"
            )
        if (tokens := self.num_tokens(height, width, num_frames)) > MOST_TOKENS:
            raise BadInput(
                f"height {height}, width {width}, num_frames {num_frames} make {tokens} tokens, more than the "
                f"{MOST_TOKENS} that a video may have, as no memory holds them; ask for a smaller or shorter one"
            )


def read_facts(model: str, *, own_code: bool = False) -> ModelFacts:
    """The facts of `demo`, of a local directory, or of a hub id (owner/name or owner/name@revision).

    With `own_code` the model may bring classes of its own; nothing of them is run here.

    Raises:
        BadInput: the model cannot be found or read, or is of no family that can be rendered.
        InfrastructureError: the hub does not answer.
    """
    if model == "demo" or (model and os.path.exists(model)):
        directory = DEMO if model == "demo" else Path(model)
        source = model if model == "demo" else str(directory.resolve())
        _check_weights(directory, read_family(directory, model))
        facts = _facts(model, source, _content_hash(directory), directory, _stored_dtype(directory / "transformer"))
    elif hub := HUB_ID.fullmatch(model):
        directory = _download(hub["name"], hub["revision"])
        facts = _facts(model, hub["name"], directory.name, directory, "bfloat16")
    else:
        raise BadInput(f"model {model} is neither demo, nor a directory, nor a hub id such as owner/name")
    if not own_code:
        _refuse_own_code(model, directory, read_family(directory, model))
    return facts


def read_family(directory: Path, name: str) -> Family:
    """The family of a pipeline's directory, by its `model_index.json`. BadInput if none renders with that class."""
    pipeline = _read_json(directory / "model_index.json").get("_class_name")
    if not isinstance(pipeline, str) or pipeline not in FAMILIES:
        raise BadInput(f"model {name} is a {pipeline}, not a {' or '.join(FAMILIES)}")
    return FAMILIES[pipeline]


def model_directory(source: str) -> str:
    """What `from_pretrained` takes for a facts' `source`; `demo` is found beside this package on each machine."""
    return str(DEMO) if source == "demo" else source


def _facts(name: str, source: str, revision: str, directory: Path, dtype: str) -> ModelFacts:
    family = read_family(directory, name)
    defaults = _read_defaults(directory / "resca.json", family.defaults)
    return ModelFacts(
        name=name,
        source=source,
        revision=revision,
        **vars(_read_numbers(directory, family)),
        dtype=defaults.dtype or dtype,
        directory=directory,
        defaults=defaults,
        plans={path.stem: path for path in sorted(directory.glob("plans/*.yaml"))},
    )


def _read_numbers(directory: Path, family: Family) -> Numbers:
    configs = [_read_json(directory / component / "config.json") for component in ("transformer", "vae")]
    try:
        return family.numbers(*configs)
    except ValidationError as error:
        raise BadInput(f"model directory {directory}: {first_problem(error)}") from error


def _read_json(path: Path) -> Json:
    try:
        return read_object(path.read_bytes())
    except OSError as error:
        raise BadInput(f"cannot read model file {path}: {error.strerror}") from error
    except ValueError as error:
        raise BadInput(f"model file {path} {error}") from error


def _read_defaults(path: Path, of_family: GenerationDefaults) -> GenerationDefaults:
    own = _read_json(path) if path.exists() else {}
    try:
        return GenerationDefaults.model_validate(of_family.model_dump() | own)
    except ValidationError as error:
        raise BadInput(f"model file {path}: {first_problem(error)}") from error


def _weights(component: Path) -> list[Path]:
    return sorted(component.glob("*.safetensors"))


def _check_weights(directory: Path, family: Family) -> None:
    for component in ("transformer", "vae", *family.text_encoders):
        if _weights(directory / component):
            continue
        pickles = [*(directory / component).glob("*.bin"), *(directory / component).glob("*.pt")]
        why = ": pickles such as .bin are never read, convert them to .safetensors" if pickles else ""
        raise BadInput(f"model directory {directory} has no weights in {component}/{why}")


def brings_its_class(component: Path) -> bool:
    """Whether a component's class is neither in diffusers nor in transformers, but in a file beside its weights."""
    entry, config = _read_json(component.parent / "model_index.json").get(component.name), component / "config.json"
    library = entry[0] if isinstance(entry, list) and entry else "diffusers"
    return library not in LIBRARIES or (config.exists() and "auto_map" in _read_json(config))


def _refuse_own_code(name: str, directory: Path, family: Family) -> None:
    for component in ("transformer", "vae", *family.text_encoders, *family.tokenizers, "scheduler"):
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
