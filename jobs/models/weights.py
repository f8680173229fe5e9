"""Which files hold a model's weights, and whether they are whole: from their headers alone, without torch."""

import re
from collections import Counter
from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open

from jobs.errors import BadInput
from jobs.models.directory import lfs_pointer, read_json

FILES = {"diffusers": "diffusion_pytorch_model.safetensors", "transformers": "model.safetensors"}
FLOATS = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
# Of buffers: positions, masks and the like.
COMPUTED_WITH = {*FLOATS, "F64", "I64", "I32", "I16", "BOOL"}
PART = re.compile(r"-\d+-of-\d+\.safetensors$")
PICKLES = (".bin", ".pt", ".pth", ".ckpt")

Header = dict[str, str]  # the number format of each tensor, in the order of the file


@dataclass(frozen=True, kw_only=True)
class WeightNames:
    """What the weights of a component are called: one file, or the index of those that they are divided into."""

    file: str
    index: str
    variant: str | None = None

    def are_among(self, files: Set[str]) -> bool:
        """Whether either of them is there."""
        return self.file in files or self.index in files


def weight_names(library: str, variant: str | None = None) -> WeightNames:
    """As diffusers and transformers name weights, and a variant of them: `model.fp16.safetensors`."""
    file = FILES[library]
    stem, dot = file.removesuffix(".safetensors"), f".{variant}" if variant else ""
    return WeightNames(file=f"{stem}{dot}.safetensors", index=f"{file}.index{dot}.json", variant=variant)


def names_in_use(files: Set[str], library: str, variant: str | None) -> WeightNames:
    """The names that are loaded, of the files in a component's folder: those of the variant, else the plain ones.

    That is what diffusers does. A component with a class of its own may take the names of either library.
    """
    libraries = [library] if library in FILES else list(FILES)
    plain = [weight_names(each) for each in libraries]
    of_variant = [weight_names(each, variant) for each in libraries] if variant else []
    return next((names for names in [*of_variant, *plain] if names.are_among(files)), plain[0])


def files_in(folder: Path) -> set[str]:
    """The names of the files in a component's folder; none where there is no folder."""
    return {path.name for path in folder.glob("*") if path.is_file()}


@dataclass(frozen=True, kw_only=True)
class Weights:
    """The files of a component that are loaded, with what their headers say, and the index that names them."""

    headers: dict[Path, Header]
    index: Path | None = None

    @property
    def files(self) -> list[Path]:
        """All that is read."""
        return [*self.headers, *([self.index] if self.index else [])]

    @property
    def number_formats(self) -> list[str]:
        """Of all tensors, in the order of the files."""
        return [number_format for header in self.headers.values() for number_format in header.values()]


def read_weights(folder: Path, library: str, variant: str | None, *, is_partial: bool = False) -> Weights:
    """The headers of the weights in use; none where a component has none.

    Args:
        is_partial: what is missing will be downloaded.

    Raises:
        BadInput: a file is missing, cut short, damaged, not fetched, or holds what is not computed with; it is named.
    """
    files = files_in(folder)
    names = names_in_use(files, library, variant)
    if not names.are_among(files):
        return Weights(headers={})
    index = folder / names.index
    if not index.is_file():
        return Weights(headers={folder / names.file: _read_header(folder / names.file)})
    parts = _read_index(index)
    missing = [path for path in parts if not path.is_file()]
    if missing and not is_partial:
        raise BadInput(
            f"model file {missing[0]} is missing ({len(missing)} of the {len(parts)} that {index.name} names)"
        )
    headers = {path: _read_header(path) for path in parts if path not in missing}
    for path, header in headers.items():
        if left := parts[path] - header.keys():
            raise BadInput(f"model file {path} lacks {min(left)}, which {index.name} looks for there")
    return Weights(headers=headers, index=index)


def check_names(model: str, component: str, names: WeightNames, files: Set[str]) -> None:
    """Raises BadInput, saying what there is instead, if a component has no weights under the names that are loaded."""
    if names.are_among(files):
        return
    variants, others = _variants(names, files), sorted(file for file in files if file.endswith(".safetensors"))
    if variants:
        found = f"only weights of the variant {variants[0]} in {component}/: --variant {variants[0]} takes them"
    elif others and PART.search(others[0]):
        found = f"no {names.index} in {component}/, which says what {others[0]} holds: copy it, too"
    elif others:
        found = f"no {names.file} in {component}/, only {others[0]}: give it that name if it is a diffusers model's"
    elif any(file.endswith(PICKLES) for file in files):
        found = f"no weights in {component}/: pickles such as .bin are never read, convert them to .safetensors"
    else:
        found = f"no weights in {component}/: {names.file} is missing"
    raise BadInput(f"{model} has {found}")


def _variants(names: WeightNames, files: Set[str]) -> list[str]:
    stem = re.escape(names.file.removesuffix(".safetensors"))
    name = re.compile(rf"{stem}\.([^.]+?)(?:-\d+-of-\d+)?\.safetensors|{re.escape(names.file)}\.index\.([^.]+)\.json")
    found = map(name.fullmatch, files)
    return sorted({match[1] or match[2] for match in found if match})


def _read_index(index: Path) -> dict[Path, set[str]]:
    """The tensors that an index looks for in each file."""
    match read_json(index).get("weight_map"):
        case dict(places) if places and all(isinstance(file, str) for file in places.values()):
            files = sorted(set(map(str, places.values())))
            return {index.parent / each: {name for name, file in places.items() if file == each} for each in files}
    raise BadInput(f"model file {index} is not an index of weights")


def _read_header(path: Path) -> Header:
    try:
        with safe_open(path, framework="numpy") as file:
            header = {name: file.get_slice(name).get_dtype() for name in file.offset_keys()}
    except OSError as error:
        raise BadInput(f"cannot read model file {path}: {error.strerror or error}") from error
    except SafetensorError as error:
        size = f"{path.stat().st_size:,} bytes"
        damaged = f"model file {path} ({size}) is not a whole .safetensors file: copy or download it again"
        raise BadInput(lfs_pointer(path) or damaged) from error
    _check_formats(path, header)
    return header


def _check_formats(path: Path, header: Header) -> None:
    if others := sorted({*header.values()} - COMPUTED_WITH):
        raise BadInput(
            f"model file {path} holds weights as {', '.join(others)}, which are not computed with: take those in "
            f"{', '.join(FLOATS.values())}"
        )


def stored_dtype(weights: Weights) -> str:
    """The number format of most weights; some models keep a few in float32. Raises BadInput where there are none."""
    formats = Counter(FLOATS[each] for each in weights.number_formats if each in FLOATS)
    if not formats:
        raise BadInput(f"model file {weights.files[0]} holds no weights in {', '.join(FLOATS.values())}")
    return formats.most_common(1)[0][0]
