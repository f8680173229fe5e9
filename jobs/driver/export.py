"""Finished videos and images for a judge: what is whole of a batch, each under the name that the judge looks for."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from jobs.errors import BadInput, InfrastructureError
from jobs.store.documents import read_as
from jobs.store.files import check_writable, sha256, write_text
from jobs.store.items import Sidecar
from jobs.store.known import read_sidecar
from jobs.store.ledger import BatchState
from jobs.store.medium import MEDIA, Medium, file_of
from jobs.store.storage import Storage

FOLDER = "videos"  # of a batch
RECORD = "batch.json"
THREADS = 8

Finished = tuple[str, Sidecar]  # where it lies in the batch, and what it is


def finished(batch: Storage, state: BatchState, medium: Medium, *, judge: str) -> tuple[list[Finished], list[str]]:
    """What is whole, and the names of what only a sidecar or the ledger tells of.

    Raises BadInput if the batch has others than of this medium, which the judge cannot take.
    """
    sizes = {name: stored.num_bytes for name, stored in batch.folder(FOLDER).items()}
    names = sorted(filter(_is_sidecar, sizes))
    with ThreadPoolExecutor(THREADS) as pool:
        sidecars = list(pool.map(lambda name: read_sidecar(batch, f"{FOLDER}/{_stem(name)}"), names))
    if any(sidecar and MEDIA[sidecar.medium] is not medium for sidecar in sidecars):
        others = ", ".join(f"{each.name}s" for each in MEDIA.values() if each is not medium)
        raise BadInput(f"{judge} judges {medium.name}s, and {batch} has {others}, too")
    files = [(file_of(_stem(name), medium.name), sidecar) for name, sidecar in zip(names, sidecars, strict=True)]
    whole = [(f"{FOLDER}/{name}", sidecar) for name, sidecar in files if sidecar and sizes.get(name) == sidecar.bytes]
    told = {file_of(f"{FOLDER}/{_stem(name)}", medium.name) for name in (*names, *_folders(batch))}
    told |= {file_of(each.done["name"], medium.name) for each in state.items.values() if each.done}
    return whole, sorted(told - {name for name, _ in whole})


def place(batch: Storage, source: str, sidecar: Sidecar, path: Path) -> None:
    """Link or copy one file to its name, unless it is there. Raises InfrastructureError if that cannot be done."""
    if path.is_file() and sha256(path) == sidecar.sha256:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        with batch.fetched(source) as file:
            _link_or_copy(file, path)
    except OSError as error:
        raise InfrastructureError(f"cannot put {source} at {path}: {error.strerror or error}") from error


@dataclass(frozen=True, kw_only=True)
class Record:
    """What an export of images writes of itself, as far as the next one reads it."""

    batch: str
    files: list[str]


def lay_out(to: Path, batch: Storage, images: Mapping[str, Finished], texts: Mapping[str, str]) -> None:
    """Put images, and the texts of small files, at their names below a directory, and nothing else there.

    What an older export of this batch has left is removed. Raises BadInput for a directory that holds anything else.
    """
    check_writable(to, "export directory")
    for name in _exported_before(to, batch) - images.keys() - texts.keys():
        (to / name).unlink(missing_ok=True)
    to.mkdir(parents=True, exist_ok=True)
    write_text(to / RECORD, json.dumps(_record(batch, images, texts), indent=2) + "\n")
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda name: place(batch, *images[name], to / name), images))
    for name, text in texts.items():
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        write_text(to / name, text)


def by_title(images: Sequence[Finished], titles: Mapping[tuple[str, str], str | None]) -> dict[str, list[Finished]]:
    """Images by what the judge knows them by, their prompts or what stands for these, each by seed.

    `titles` are what the newest prompt file says, by id and prompt.
    """
    grouped: dict[str, list[Finished]] = {}
    for source, sidecar in sorted(images, key=lambda image: image[1].id):
        title = titles.get((sidecar.id, sidecar.prompt), sidecar.export_as) or sidecar.prompt
        grouped.setdefault(title, []).append((source, sidecar))
    return {title: sorted(each, key=lambda image: (image[1].seed, image[1].id)) for title, each in grouped.items()}


def unfinished(state: BatchState) -> Counter[str]:
    """What of a batch is not done, by status."""
    counts = state.counts()
    del counts["done"]
    return counts


def _record(batch: Storage, images: Mapping[str, Finished], texts: Mapping[str, str]) -> dict[str, object]:
    known = {"id", "prompt", "seed", "sha256"}
    rows = [
        {"file": name, "source": source, **sidecar.model_dump(include=known)}
        for name, (source, sidecar) in images.items()
    ]
    return {"batch": str(batch), "files": [*images, *texts], "images": rows}


def _exported_before(to: Path, batch: Storage) -> set[str]:
    """The files that an older export of this batch has left in the directory. Raises BadInput for other content."""
    present = {path.relative_to(to).as_posix() for path in to.rglob("*") if not path.is_dir()} if to.exists() else set()
    if not present:
        return set()
    if RECORD not in present:
        raise BadInput(f"{to} is not empty and holds no export of {batch}; name a new directory")
    try:
        record = read_as(Record, (to / RECORD).read_bytes())
    except (OSError, ValueError) as error:
        raise BadInput(f"{to / RECORD} is not the record of an export; name a new directory") from error
    if record.batch != str(batch):
        raise BadInput(f"{to} holds an export of {record.batch}, not of {batch}; name a new directory")
    if strange := sorted(present - {RECORD, *record.files}):
        raise BadInput(
            f"{to} holds {strange[0]!r}, which is no part of an export; move it away or name a new directory"
        )
    return present - {RECORD}


def _link_or_copy(source: Path, path: Path) -> None:
    try:
        os.link(source, path)
    except OSError:  # Another file system, or one without links.
        shutil.copyfile(source, path)


def _is_sidecar(name: str) -> bool:
    return name.endswith(".json") and not name.startswith(".")


def _folders(batch: Storage) -> list[str]:
    """Those that have a sidecar's name."""
    return list(filter(_is_sidecar, batch.folders(FOLDER)))


def _stem(name: str) -> str:
    return name.removesuffix(".json")
