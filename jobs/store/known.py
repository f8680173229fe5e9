"""What a batch has already: finished videos, those of other settings, and those that were given up."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

from jobs.store.documents import read_as, read_object
from jobs.store.items import DECIDING, POSTER, BatchSettings, RenderItem, Sidecar
from jobs.store.ledger import FOLDER, READERS, BatchState, read_state
from jobs.store.ledger_lines import DoneLine
from jobs.store.medium import MEDIA, MediumName, file_of
from jobs.store.storage import Storage, Stored
from jobs.store.usage import Usage

Fact = TypeVar("Fact")


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """A finished video, as the ledger or its sidecar tells.

    `stamp` is the file's, where the ledger has seen it; `num_sidecar_bytes` are not known of earlier versions.
    """

    id: str
    name: str
    fingerprint: str
    sha256: str
    num_bytes: int
    num_sidecar_bytes: int | None
    stamp: str | None
    seconds: dict[str, float]
    dense_steps: int
    sparse_steps: int
    flops: float
    flops_full: float
    device: str
    world_size: int
    medium: MediumName = "video"
    has_poster: bool = False

    @property
    def file(self) -> str:
        """The MP4 or PNG."""
        return file_of(self.name, self.medium)

    @classmethod
    def of_sidecar(cls, sidecar: Sidecar, name: str, stamp: str | None = None) -> "Done":
        """`name` is the files' without their suffix."""
        return cls(
            **sidecar.model_dump(include={"id", "fingerprint", "sha256", "dense_steps", "sparse_steps"}),
            **sidecar.model_dump(include={"flops", "flops_full", "device", "medium"}),
            name=name,
            num_bytes=sidecar.bytes,
            num_sidecar_bytes=len(sidecar.text.encode()),
            stamp=stamp,
            seconds=sidecar.seconds.model_dump(),
            world_size=sidecar.layout.world_size,
            has_poster=sidecar.poster,
        )

    @classmethod
    def of_ledger(cls, line: DoneLine) -> "Done":
        """The inverse of `for_ledger`."""
        return cls(
            id=line["id"],
            name=line["name"],
            fingerprint=line["fp"],
            sha256=line["sha"],
            num_bytes=line["bytes"],
            num_sidecar_bytes=line.get("side"),
            stamp=line.get("stamp"),
            seconds=line["s"],
            dense_steps=line["dense"],
            sparse_steps=line["sparse"],
            flops=line["flops"],
            flops_full=line["full"],
            device=line["dev"],
            world_size=line["ranks"],
            medium=line.get("medium", "video"),
            has_poster=line.get("poster", False),
        )

    def for_ledger(self) -> dict[str, object]:
        """What the ledger's line says of it."""
        return {
            "id": self.id,
            "stamp": self.stamp,
            "name": self.name,
            "fp": self.fingerprint,
            "sha": self.sha256,
            "bytes": self.num_bytes,
            "side": self.num_sidecar_bytes,
            "s": self.seconds,
            "dense": self.dense_steps,
            "sparse": self.sparse_steps,
            "flops": self.flops,
            "full": self.flops_full,
            "dev": self.device,
            "ranks": self.world_size,
            **({} if self.medium == "video" else {"medium": self.medium}),
            **({"poster": True} if self.has_poster else {}),
        }


@dataclass(frozen=True, kw_only=True)
class Known:
    """By item id: what need not be rendered, what lies there with other settings, and why others were given up.

    `unrecorded` are the finished videos that the ledger does not know as they lie there, because their driver was
    killed before it could say so, or because they were copied; `ledger` is the ledger that all this was read from.
    `outdated` are the names of files that an item had with another prompt or seed, beside those that it has now.
    `usage` is what all drivers so far have used.
    """

    finished: dict[str, Done] = field(default_factory=dict)
    changed: dict[str, Done] = field(default_factory=dict)
    given_up: dict[str, str] = field(default_factory=dict)
    unrecorded: list[Done] = field(default_factory=list)
    ledger: dict[str, Stored] = field(default_factory=dict)
    outdated: dict[str, list[str]] = field(default_factory=dict)
    usage: Usage = field(default_factory=Usage)

    @property
    def superseded(self) -> list[str]:
        """Of the outdated files those whose place a finished video has taken."""
        return [name for item_id, names in self.outdated.items() if item_id in self.finished for name in names]

    def of(self, items: Sequence[RenderItem]) -> "Known":
        """What is known of these items alone; what is unrecorded stays so, whosever it is."""
        ids = {item.id for item in items}
        return replace(
            self,
            finished=_only(ids, self.finished),
            changed=_only(ids, self.changed),
            given_up=_only(ids, self.given_up),
            outdated=_only(ids, self.outdated),
        )


def survey(
    storage: Storage,
    settings: BatchSettings,
    items: Sequence[RenderItem],
    *,
    verify: bool = False,
    then: Sequence[BatchSettings] = (),
) -> Known:
    """Compare items with what lies in the storage.

    A video whose size and stamp are as the ledger saw them is taken for intact; any other, or with `verify` each, is
    read and its checksum compared. So is a sidecar of the size that the ledger saw; any other must be one still.
    `then` are the same settings as earlier versions called them.
    """
    ledger = storage.folder(FOLDER)
    files, state = storage.folder("videos"), read_state(storage)
    state.usage.end(state.last_s)  # A driver that begins now finds no gangs of earlier ones.
    done = read_done(storage, state, files)
    known = Known(given_up=_given_up(state, items), ledger=ledger, usage=state.usage)
    for item in items:
        each = done.get(item.id, ())
        if old := [one.name for one in each if one.name != item.name and _lies_in(files, one)]:
            known.outdated[item.id] = old
        there = _most_fitting(each, settings.fingerprint(item), files)
        if there is None:
            continue
        is_complete = _is_complete(item, files, with_latents=settings.save_latents)
        if not any(there.fingerprint == each.fingerprint(item) for each in (settings, *then)):
            known.changed[item.id] = there
        elif is_complete and is_intact(storage, there, files, verify=verify):
            known.finished[item.id] = there
            if (seen := _as_it_lies(there, files)) != there:
                known.unrecorded.append(seen)
    return known


def read_done(storage: Storage, state: BatchState, files: dict[str, Stored]) -> dict[str, list[Done]]:
    """By item id the videos of which only the sidecar tells, and last the one that the ledger calls finished."""
    recorded = [Done.of_ledger(each.done) for each in state.items.values() if each.done]
    known = {_stem(each) for each in recorded}
    stems = [name.removesuffix(".json") for name in files if name.endswith(".json")]
    done: defaultdict[str, list[Done]] = defaultdict(list)
    for each in [*_read_sidecars(storage, [s for s in stems if s not in known]), *recorded]:
        done[each.id].append(each)
    return done


def is_intact(storage: Storage, done: Done, files: dict[str, Stored], *, verify: bool = False) -> bool:
    """Whether the video is what its checksum says, and has a sidecar that can be read.

    Nothing is read of what the ledger has seen, but with `verify`.
    """
    video, sidecar = files.get(_file(done)), files.get(f"{_stem(done)}.json")
    if video is None or video.num_bytes != done.num_bytes or sidecar is None or not sidecar.num_bytes:
        return False
    is_seen = video.stamp == done.stamp and not verify
    if not (is_seen and done.num_sidecar_bytes in (None, sidecar.num_bytes)) and not read_sidecar(storage, done.name):
        return False
    try:
        return is_seen or storage.digest(done.file) == done.sha256
    except FileNotFoundError:  # It was there a moment ago.
        return False


def remove_video(storage: Storage, name: str) -> None:
    """Remove a video and what lies beside it; the sidecar last, as without it nobody knows of the rest."""
    for kind in (POSTER, *(each.suffix for each in MEDIA.values()), "safetensors", "json"):
        storage.remove(f"{name}.{kind}")


def difference(storage: Storage, settings: BatchSettings, item: RenderItem, there: Done) -> str:
    """What decides the pixels and is not as it was: `steps 50 -> 40, method.interval 6 -> 4`."""
    try:
        before = read_object(storage.read(f"{there.name}.json"))
    except (OSError, ValueError):
        return "settings that are not known any more"
    old, new = flat({key: before[key] for key in DECIDING if key in before}), flat(settings.deciding(item))
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    if "method.name" in names:  # What else differs of the method goes without saying.
        names = [name for name in names if name == "method.name" or not name.startswith("method.")]
    return ", ".join(f"{name} {_short(old.get(name))} -> {_short(new.get(name))}" for name in names)


def flat(value: dict[str, object], prefix: str = "") -> dict[str, object]:
    """Nested settings with dotted names."""
    leaves: dict[str, object] = {}
    for key, each in value.items():
        leaves |= flat(each, f"{prefix}{key}.") if isinstance(each, dict) else {f"{prefix}{key}": each}
    return leaves


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _given_up(state: BatchState, items: Iterable[RenderItem]) -> dict[str, str]:
    failed = {name: each.error for name, each in state.items.items() if each.status == "failed"}
    return {item.id: failed[item.id] for item in items if item.id in failed}


def _only(ids: set[str], by_id: dict[str, Fact]) -> dict[str, Fact]:
    return {item_id: fact for item_id, fact in by_id.items() if item_id in ids}


def _most_fitting(done: Sequence[Done], fingerprint: str, files: dict[str, Stored]) -> Done | None:
    """Of an item's videos that are there the one of these settings, else that which the ledger knows."""
    there = [each for each in reversed(done) if _file(each) in files]
    return max(there, key=lambda each: each.fingerprint == fingerprint, default=None)


def _as_it_lies(done: Done, files: dict[str, Stored]) -> Done:
    """With what the ledger is to know its files by. One whose line has no size of a sidecar is left so."""
    video, sidecar = files[_file(done)], files[f"{_stem(done)}.json"]
    size = sidecar.num_bytes if done.stamp != video.stamp or done.num_sidecar_bytes is not None else None
    return replace(done, stamp=video.stamp, num_sidecar_bytes=size)


def _lies_in(files: dict[str, Stored], done: Done) -> bool:
    return _file(done) in files or f"{_stem(done)}.json" in files


def _is_complete(item: RenderItem, files: dict[str, Stored], *, with_latents: bool) -> bool:
    stem = item.name.removeprefix("videos/")
    return f"{stem}.json" in files and (not with_latents or f"{stem}.safetensors" in files)


def _read_sidecars(storage: Storage, stems: list[str]) -> list[Done]:
    names = [f"videos/{stem}" for stem in stems]
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda name: read_sidecar(storage, name), names)
        return [Done.of_sidecar(sidecar, name) for name, sidecar in zip(names, found, strict=True) if sidecar]


def read_sidecar(storage: Storage, name: str) -> Sidecar | None:
    """What a finished video says of itself; `name` is its files' without suffix. None if it is gone or damaged."""
    try:
        return read_as(Sidecar, storage.read(f"{name}.json"))
    except (FileNotFoundError, ValueError):
        return None


def _stem(done: Done) -> str:
    return done.name.removeprefix("videos/")


def _file(done: Done) -> str:
    return done.file.removeprefix("videos/")
