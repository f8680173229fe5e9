"""What a batch remembers of how it was asked for, so that `retry` needs nothing but its directory."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from jobs.errors import BadInput
from jobs.models.demos import is_path
from jobs.options.batch import RenderOptions
from jobs.options.shared import MethodOptions, PromptOptions
from jobs.request.recipes import SUFFIXES
from jobs.store.additions import PROMPTS, Additions, remembered_items
from jobs.store.documents import read_as
from jobs.store.open import directory_of
from jobs.store.storage import Storage

if TYPE_CHECKING:
    from jobs.driver.batch_plan import Plan

OPTIONS, RECIPE = "batch.json", "recipe.json"
# Of one run, not of the batch.
PASSING = (
    *("limit", "sample", "sample_seed", "retry", "verify", "yes", "stay"),
    *("json", "address", "env", "progress", "on_end", "keep_warm", "priority"),
)


def remember(plan: "Plan") -> None:
    """Write the options, the complete prompts, and a recipe that came from a file: that may be gone by then."""
    options, storage = plan.options, plan.storage
    if options.cache.plan or options.method.endswith(SUFFIXES):
        storage.write(RECIPE, json.dumps(plan.settings.method.describe(), indent=2).encode())
        options = replace(options, method=RECIPE, cache=MethodOptions())
    # The prompts that are written are complete, and have all of them.
    options = replace(options, images_per_prompt=None, lines=PromptOptions())
    if is_path(options.model):
        options = replace(options, model=str(Path(options.model).absolute()))
    given = {name: value for name, value in asdict(options).items() if name not in PASSING}
    storage.write(OPTIONS, json.dumps(given, indent=2, default=str).encode())
    lines = (item.model_dump_json(exclude_none=True) for item in plan.batch)
    storage.write(PROMPTS, "".join(f"{line}\n" for line in lines).encode())


@contextmanager
def folder_of_copies(storage: Storage) -> Iterator[Path]:
    """A local folder for copies of what lies in a storage; a BadInput in the block names them by their places there."""
    with tempfile.TemporaryDirectory(prefix="resca-") as folder:
        try:
            yield Path(folder)
        except BadInput as error:
            raise BadInput(str(error).replace(folder, str(storage))) from error


def recall(storage: Storage, folder: Path) -> RenderOptions:
    """The options of the batch in a storage, with its prompts and recipe, or copies of them in a local folder.

    Raises BadInput if there is no batch.
    """
    text = _read(storage, OPTIONS)
    try:
        options = read_as(RenderOptions, text)  # what other versions had besides is passed over
    except ValueError as error:
        hint = "give its prompts and options to resca render --retry instead"
        raise BadInput(f"{storage.where(OPTIONS)} is damaged ({error}); {hint}") from error
    method = str(_at_hand(storage, RECIPE, folder)) if options.method == RECIPE else options.method
    return replace(options, out=str(storage), prompts=_at_hand(storage, PROMPTS, folder), method=method)


def export_names(storage: Storage) -> dict[tuple[str, str], str | None]:
    """What an export is to call the videos of the newest prompts, by id and prompt; none where they are not known."""
    additions = Additions(storage)
    additions.refresh()
    items = [*remembered_items(storage), *additions.items]
    return {(item.id, item.prompt): item.export_as for item in items}


def _read(storage: Storage, name: str) -> bytes:
    try:
        return storage.read(name)
    except FileNotFoundError:
        raise BadInput(f"{storage} holds no batch: there is no {name}") from None


def _at_hand(storage: Storage, name: str, folder: Path) -> Path:
    """The file itself, or a copy of what lies at a URL."""
    text, own = _read(storage, name), directory_of(str(storage))
    if own is None:
        (folder / name).write_bytes(text)
    return (own or folder) / name
