"""A pipeline's directory as diffusers lays it out: an index of components, and a folder for each."""

from pathlib import Path

from jobs.errors import BadInput
from jobs.models.family import Configs, Family, Json
from jobs.models.registry import FAMILIES
from jobs.store.documents import read_object

INDEX = "model_index.json"
LIBRARIES = ("diffusers", "transformers")
LFS_POINTER = b"version https://git-lfs"
VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model")
OF_BYTES = (("transformers", "ByT5Tokenizer"),)  # tokenizers that need none
ORIGINALS = ("*.pt", "*.pth", "*.ckpt", "*.bin", "*.safetensors", "config.json")
# What older models were saved as: a class that diffusers reads as the one that it has become.
EARLIER = {"Transformer2DModel": ("DiTTransformer2DModel", "PixArtTransformer2DModel")}
CONVERTED = "needed is one that diffusers has saved, such as hunyuanvideo-community/HunyuanVideo"


def read_json(path: Path) -> Json:
    """A JSON object. Raises BadInput naming the file."""
    try:
        return read_object(path.read_bytes())
    except OSError as error:
        raise BadInput(f"cannot read model file {path}: {error.strerror}") from error
    except ValueError as error:
        raise BadInput(lfs_pointer(path) or f"model file {path} {error}") from error


def lfs_pointer(path: Path) -> str | None:
    """What is wrong with a file that only names what Git LFS has not fetched; None if it is another."""
    with path.open("rb") as file:
        if file.read(len(LFS_POINTER)) != LFS_POINTER:
            return None
    return f"model file {path} is a Git LFS pointer, not the file itself: run git lfs pull where it was cloned"


def check_directory(name: str, directory: Path) -> None:
    """Raises BadInput, saying what it is instead, for what is no directory with a `model_index.json`."""
    if not directory.is_dir():
        raise BadInput(f"model {name} is a single file, not a directory with a whole pipeline: {CONVERTED}")
    if (directory / INDEX).exists():
        return
    if any(directory.glob("*lora*.safetensors")) or (directory / "adapter_config.json").exists():
        raise BadInput(f"model {name} is a LoRA, which is not read: merge it into its model, and save that whole")
    if (directory.parent / INDEX).exists():
        raise BadInput(f"model {name} is one component of a pipeline: give the directory above it")
    if any(path for kind in ORIGINALS for path in directory.rglob(kind)):
        raise BadInput(f"model {name} has weights, but no {INDEX}, as an original checkpoint: {CONVERTED}")
    raise BadInput(f"model directory {directory} has no {INDEX}: {CONVERTED}")


def read_family(directory: Path, name: str) -> Family:
    """The family of a pipeline's directory, by its `model_index.json`. BadInput if none renders with that class."""
    pipeline = read_json(directory / INDEX).get("_class_name")
    if not isinstance(pipeline, str) or pipeline not in FAMILIES:
        raise BadInput(f"model {name} is a {pipeline}, not a {' or '.join(FAMILIES)}")
    return FAMILIES[pipeline]


def components_of(directory: Path, family: Family) -> tuple[str, ...]:
    """All that a family's pipeline in a directory consists of."""
    return *models_of(directory, family), *family.tokenizers, *family.loop


def models_of(directory: Path, family: Family) -> tuple[str, ...]:
    """The components with weights."""
    return *transformers_of(directory, family), "vae", *family.text_encoders


def transformers_of(directory: Path, family: Family) -> tuple[str, ...]:
    """Those of the family's transformers that the index names; the first where it names none, which is then missing."""
    named = tuple(name for name in family.transformers if entry_of(directory / name))
    return named or family.transformers[:1]


def entry_of(component: Path) -> tuple[str, str] | None:
    """The library and the class of a component, by the index beside its folder; None if the pipeline has none."""
    match read_json(component.parent / INDEX).get(component.name):
        case [str(library), str(class_name)]:
            return library, class_name
    return None


def library_of(component: Path) -> str:
    """The library that reads a component."""
    entry = entry_of(component)
    return entry[0] if entry else "diffusers"


def brings_its_class(component: Path) -> bool:
    """Whether a component's class is neither in diffusers nor in transformers, but in a file beside its weights."""
    config = component / "config.json"
    return library_of(component) not in LIBRARIES or (config.exists() and "auto_map" in read_json(config))


def check_classes(name: str, directory: Path, family: Family) -> None:
    """Raises BadInput for a component that the index does not name, or that is of another class than the family's."""
    for component in components_of(directory, family):
        entry, wanted = entry_of(directory / component), family.classes.get(component)
        if entry is None:
            raise BadInput(f"model {name} has no {component}: a {family.pipeline} needs one, and {INDEX} names none")
        if entry[0] in LIBRARIES and wanted and wanted not in (entry[1], *EARLIER.get(entry[1], ())):
            raise BadInput(f"model {name} has a {entry[1]} as its {component}: a {family.pipeline} needs a {wanted}")


def check_configs(directory: Path, family: Family) -> None:
    """Raises BadInput for a configuration or vocabulary that is missing or damaged, and for quantised models."""
    for component in models_of(directory, family):
        config = directory / component / "config.json"
        if read_json(config).get("quantization_config"):
            raise BadInput(f"model file {config} has a quantization_config: quantised weights are not computed with")
    for tokenizer in family.tokenizers:
        _check_vocabulary(directory / tokenizer)


def read_configs(directory: Path, family: Family) -> Configs:
    """What the files of its components say. Raises BadInput naming one that is missing or damaged."""
    names = transformers_of(directory, family)[0], "vae"
    transformer, vae = (read_json(directory / name / "config.json") for name in names)
    loop = {name: read_json(loop_config(directory, name)) for name in family.loop}
    return Configs(index=read_json(directory / INDEX), transformer=transformer, vae=vae, loop=loop)


def loop_config(directory: Path, name: str) -> Path:
    """Where the configuration of a component without weights is, such as the scheduler's."""
    return directory / name / f"{name}_config.json"


def _check_vocabulary(folder: Path) -> None:
    if entry_of(folder) in OF_BYTES:
        return
    files = [path for kind in VOCABULARIES for path in folder.glob(kind)]
    if not files:
        raise BadInput(f"model directory {folder.parent} has no vocabulary in {folder.name}/, such as tokenizer.json")
    for path in files:
        if path.suffix == ".json":
            read_json(path)
        elif complaint := lfs_pointer(path):
            raise BadInput(complaint)
