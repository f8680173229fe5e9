"""What a batch remembers of how it was asked for, so that `retry` needs nothing but its directory."""

import json
from collections.abc import Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, get_type_hints

from jobs.batch.plan import Plan
from jobs.batch.storage import Storage
from jobs.batch_options import RenderOptions
from jobs.errors import BadInput
from jobs.options import MethodOptions, VideoOptions

OPTIONS, PROMPTS = "batch.json", "prompts.jsonl"
PROMPT_FIELDS = {"id", "prompt", "seed", "height", "width", "num_frames", "steps"}
# Of one run, not of the batch.
PASSING = ("limit", "replace", "verify", "yes", "json", "address")


def remember(plan: Plan) -> None:
    """Write the options and the complete prompts."""
    options = _absolute(plan.options)
    given = {name: value for name, value in asdict(options).items() if name not in PASSING}
    plan.storage.write(OPTIONS, json.dumps(given, indent=2, default=str).encode())
    lines = (item.model_dump_json(include=PROMPT_FIELDS) for item in plan.items)
    plan.storage.write(PROMPTS, "".join(f"{line}\n" for line in lines).encode())


def recall(storage: Storage, prompts: Path) -> RenderOptions:
    """The options of the batch in a storage, with its prompts read from the local file `prompts`.

    Raises BadInput if there is no batch.
    """
    try:
        given = json.loads(storage.read(OPTIONS))
    except FileNotFoundError:
        raise BadInput(f"{storage} holds no batch: there is no {OPTIONS}") from None
    except ValueError as error:
        raise BadInput(f"{storage.where(OPTIONS)} is damaged: {error}") from error
    given |= {"out": str(storage), "prompts": prompts}
    cache, video = _typed(MethodOptions, given.pop("cache")), _typed(VideoOptions, given.pop("video"))
    return RenderOptions(**_known(RenderOptions, given), cache=cache, video=video)


def _absolute(options: RenderOptions) -> RenderOptions:
    """Files that were named relative to where the driver runs."""
    plan = options.cache.plan
    return replace(
        options,
        cache=replace(options.cache, plan=plan.absolute() if plan else None),
        model=_absolute_if(options.model != "demo", options.model),
        method=_absolute_if(options.method.endswith((".yaml", ".yml")), options.method),
    )


def _absolute_if(may_be_file: bool, name: str) -> str:
    return str(Path(name).absolute()) if may_be_file and Path(name).exists() else name


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
