"""What a batch has already: finished videos, those of other settings, and those that were given up."""

import json
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from jobs.store.items import DECIDING, BatchSettings, RenderItem, Sidecar
from jobs.store.ledger import FOLDER, READERS, Account, read_account
from jobs.store.storage import Storage, Stored


@dataclass(frozen=True, kw_only=True, slots=True)
class Done:
    """A finished video, as the ledger or its sidecar tells. `stamp` is the file's, where the ledger has seen it."""

    id: str
    name: str
    fingerprint: str
    sha256: str
    num_bytes: int
    stamp: str | None
    seconds: dict[str, float]
    dense_steps: int
    sparse_steps: int
    flops: float
    flops_full: float
    device: str
    world_size: int

    @classmethod
    def of_sidecar(cls, sidecar: Sidecar, name: str, stamp: str | None = None) -> "Done":
        """`name` is the files' without their suffix."""
        return cls(
            **sidecar.model_dump(include={"id", "fingerprint", "sha256", "dense_steps", "sparse_steps"}),
            **sidecar.model_dump(include={"flops", "flops_full", "device"}),
            name=name,
            num_bytes=sidecar.bytes,
            stamp=stamp,
            seconds=sidecar.seconds.model_dump(),
            world_size=sidecar.layout.world_size,
        )

    @classmethod
    def of_ledger(cls, line: dict[str, Any]) -> "Done":
        """The inverse of `facts`."""
        return cls(id=line["id"], stamp=line.get("stamp"), **{field: line[key] for field, key in SHORT.items()})

    def facts(self) -> dict[str, Any]:
        """As the ledger has it."""
        return {"id": self.id, "stamp": self.stamp, **{key: getattr(self, field) for field, key in SHORT.items()}}


# A ledger of a hundred thousand videos is read in a second: its keys are short.
SHORT = {
    **{"name": "name", "fingerprint": "fp", "sha256": "sha", "num_bytes": "bytes", "seconds": "s"},
    **{"dense_steps": "dense", "sparse_steps": "sparse", "flops": "flops", "flops_full": "full"},
    **{"device": "dev", "world_size": "ranks"},
}


@dataclass(frozen=True, kw_only=True)
class Known:
    """By item id: what need not be rendered, what lies there with other settings, and why others were given up.

    `unrecorded` are the finished videos that the ledger does not know as they lie there, because their driver was
    killed before it could say so, or because they were copied; `ledger` is the ledger that all this was read from.
    """

    finished: dict[str, Done] = field(default_factory=dict)
    changed: dict[str, Done] = field(default_factory=dict)
    given_up: dict[str, str] = field(default_factory=dict)
    unrecorded: list[Done] = field(default_factory=list)
    ledger: dict[str, Stored] = field(default_factory=dict)


def survey(storage: Storage, settings: BatchSettings, items: Sequence[RenderItem], *, verify: bool = False) -> Known:
    """Compare items with what lies in the storage.

    A video whose size and stamp are as the ledger saw them is taken for intact; any other, or with `verify` each, is
    read and its checksum compared.
    """
    ledger = storage.folder(FOLDER)
    files, account = storage.folder("videos"), read_account(storage)
    done = read_done(storage, account, files)
    known = Known(given_up=_given_up(account, items), ledger=ledger)
    for item in items:
        there = done.get(item.id)
        if there is None or f"{_stem(there)}.mp4" not in files:
            continue
        is_complete = _is_complete(item, files, with_latents=settings.save_latents)
        if there.fingerprint != settings.fingerprint(item):
            known.changed[item.id] = there
        elif is_complete and is_intact(storage, there, files, verify=verify):
            known.finished[item.id] = there
            stamp = files[f"{_stem(there)}.mp4"].stamp
            if there.stamp != stamp:
                known.unrecorded.append(replace(there, stamp=stamp))
    return known


def read_done(storage: Storage, account: Account, files: dict[str, Stored]) -> dict[str, Done]:
    """The videos that the ledger calls finished, and those of which only the sidecar tells; by item id."""
    listed = [Done.of_ledger(each.facts) for each in account.items.values() if each.status == "done"]
    told = {_stem(each) for each in listed}
    stems = [name.removesuffix(".json") for name in files if name.endswith(".json")]
    return {each.id: each for each in [*_read_sidecars(storage, [s for s in stems if s not in told]), *listed]}


def is_intact(storage: Storage, done: Done, files: dict[str, Stored], *, verify: bool = False) -> bool:
    """Whether the video is what its checksum says; with `verify`, whether its sidecar can be read, too."""
    video = files.get(f"{_stem(done)}.mp4")
    if video is None or video.num_bytes != done.num_bytes:
        return False
    if video.stamp == done.stamp and not verify:
        return True
    return storage.digest(f"{done.name}.mp4") == done.sha256 and _read_sidecar(storage, done.name) is not None


def difference(storage: Storage, settings: BatchSettings, item: RenderItem, there: Done) -> str:
    """What decides the pixels and is not as it was: `steps 50 -> 40, method.interval 6 -> 4`."""
    try:
        before = json.loads(storage.read(f"{there.name}.json"))
    except (OSError, ValueError):
        return "settings that are not known any more"
    old, new = flat({key: before[key] for key in DECIDING if key in before}), flat(settings.deciding(item))
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    return ", ".join(f"{name} {_short(old.get(name))} -> {_short(new.get(name))}" for name in names)


def flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings with dotted names."""
    leaves: dict[str, Any] = {}
    for key, each in value.items():
        leaves |= flat(each, f"{prefix}{key}.") if isinstance(each, dict) else {f"{prefix}{key}": each}
    return leaves


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _given_up(account: Account, items: Iterable[RenderItem]) -> dict[str, str]:
    standings = account.items.items()
    failed = {name: each.facts.get("error", "") for name, each in standings if each.status == "failed"}
    return {item.id: failed[item.id] for item in items if item.id in failed}


def _is_complete(item: RenderItem, files: dict[str, Stored], *, with_latents: bool) -> bool:
    stem = item.name.removeprefix("videos/")
    return f"{stem}.json" in files and (not with_latents or f"{stem}.safetensors" in files)


def _read_sidecars(storage: Storage, stems: list[str]) -> list[Done]:
    with ThreadPoolExecutor(READERS) as pool:
        found = pool.map(lambda stem: _read_sidecar(storage, f"videos/{stem}"), stems)
        return [done for done in found if done]


def _read_sidecar(storage: Storage, name: str) -> Done | None:
    try:
        return Done.of_sidecar(Sidecar.model_validate_json(storage.read(f"{name}.json")), name)
    except (OSError, ValidationError, UnicodeDecodeError):
        return None


def _stem(done: Done) -> str:
    return done.name.removeprefix("videos/")
