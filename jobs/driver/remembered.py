"""What a batch remembers of how it was asked for, so that `retry` needs nothing but its directory."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from jobs.driver.batch_plan import Plan
from jobs.errors import BadInput
from jobs.options.batch import RenderOptions
from jobs.options.shared import MethodOptions, VideoOptions
from jobs.request.recipes import SUFFIXES
from jobs.store.storage import Storage

OPTIONS, PROMPTS, RECIPE = "batch.json", "prompts.jsonl", "recipe.json"
# Of one run, not of the batch.
PASSING = ("limit", "retry", "verify", "yes", "json", "address")


def remember(plan: Plan) -> None:
    """Write the options, the complete prompts, and a recipe that came from a file: that may be gone by then."""
    options, storage = plan.options, plan.storage
    if options.cache.plan or options.method.endswith(SUFFIXES):
        storage.write(RECIPE, json.dumps(plan.settings.method.describe(), indent=2).encode())
        options = replace(options, method=RECIPE, cache=MethodOptions())
    if options.model != "demo" and Path(options.model).exists():
        options = replace(options, model=str(Path(options.model).absolute()))
    given = {name: value for name, value in asdict(options).items() if name not in PASSING}
    storage.write(OPTIONS, json.dumps(given, indent=2, default=str).encode())
    lines = (item.model_dump_json() for item in plan.items)
    storage.write(PROMPTS, "".join(f"{line}\n" for line in lines).encode())


def recall(storage: Storage, folder: Path) -> RenderOptions:
    """The options of the batch in a storage, with its prompts and its recipe copied to a local folder.

    Raises BadInput if there is no batch.
    """
    text = _read(storage, OPTIONS)
    try:
        given = json.loads(text)
    except ValueError as error:
        raise BadInput(f"{storage.where(OPTIONS)} is damaged: {error}") from error
    given |= {"out": str(storage), "prompts": _copy(storage, PROMPTS, folder)}
    if given["method"] == RECIPE:
        given["method"] = str(_copy(storage, RECIPE, folder))
    cache, video = _typed(MethodOptions, given.pop("cache")), _typed(VideoOptions, given.pop("video"))
    return RenderOptions(**_known(RenderOptions, given), cache=cache, video=video)


def _read(storage: Storage, name: str) -> bytes:
    try:
        return storage.read(name)
    except FileNotFoundError:
        raise BadInput(f"{storage} holds no batch: there is no {name}") from None


def _copy(storage: Storage, name: str, folder: Path) -> Path:
    (folder / name).write_bytes(_read(storage, name))
    return folder / name


def _typed(kind: type, given: Mapping[str, Any]) -> Any:
    hints = get_type_hints(kind)
    values = {name: Path(value) if value and Path in _members(hints[name]) else value for name, value in given.items()}
    return kind(**_known(kind, values))


def _members(hint: Any) -> tuple[Any, ...]:
    return getattr(hint, "__args__", (hint,))


def _known(kind: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Without options of other versions."""
    assert is_dataclass(kind)
    names = {field.name for field in fields(kind)}
    return {name: value for name, value in given.items() if name in names}
