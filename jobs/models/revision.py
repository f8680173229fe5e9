"""The revision of a model in a local directory: a hash of what decides its pixels."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from jobs.models.directory import INDEX, components_of, loop_config
from jobs.models.family import Family

ALL_KINDS = {".json", ".safetensors", ".bin", ".model", ".txt", ".py"}
VOCABULARY_KINDS = {".json", ".model", ".txt", ".jinja"}


def revision_of(directory: Path, family: Family, weights: Iterable[Path]) -> str:
    """Equal for equal copies wherever they lie, cheap for tens of gigabytes; `weights` are the files in use."""
    wanted = {directory / INDEX, directory / "resca.json", *weights}
    wanted |= {loop_config(directory, name) for name in family.loop}
    for component in components_of(directory, family):
        inside = list((directory / component).rglob("*"))
        wanted |= {path for path in inside if path.suffix == ".py" or path == directory / component / "config.json"}
        if component in family.tokenizers:
            wanted |= {path for path in inside if path.suffix in VOCABULARY_KINDS}
    return _hash(directory, wanted)


def earlier_revision(directory: Path) -> str:
    """What earlier versions took for the revision: they counted every file of some kinds, wherever it lay."""
    return _hash(directory, (path for path in directory.rglob("*") if path.suffix in ALL_KINDS))


def _hash(directory: Path, paths: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in sorted(path for path in paths if path.is_file()):
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
