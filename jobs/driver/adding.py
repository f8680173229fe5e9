"""Adding prompts to a batch: checked as its own were, and on disk before anything is told."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from jobs.driver.batch_plan import batch_settings
from jobs.driver.lines import as_item, check_lines, check_passes, numbering_for
from jobs.driver.remembered import folder_of_copies, recall
from jobs.errors import BadInput
from jobs.models.facts import ModelFacts, read_facts
from jobs.options.batch import AddOptions, RenderOptions
from jobs.request.checks import defaults_for
from jobs.request.notices import notices
from jobs.request.prompts import Item, items_of
from jobs.request.source import read_source
from jobs.store.additions import Additions
from jobs.store.items import RenderItem
from jobs.store.lock import Holder, read_holder
from jobs.store.members import Members, number_of
from jobs.store.open import open_storage
from jobs.store.storage import Storage

ENDING_S = 60.0  # a driver may take so long from its last look to its end


@dataclass(frozen=True, kw_only=True)
class Added:
    """What an addition has come to: all items that were asked for, how many were there already, and what to know."""

    items: list[RenderItem]
    num_there: int
    notices: list[str]


def add_lines(options: AddOptions) -> Added:
    """Add what was asked for to the batch in its directory. Raises BadInput; then nothing was added."""
    storage = open_storage(options.out)
    with folder_of_copies(storage) as folder:
        return _add(options, recall(storage, folder), storage)


def _add(options: AddOptions, batch: RenderOptions, storage: Storage) -> Added:
    facts = read_facts(batch.model, own_code=batch.trust_remote_code, variant=batch.video.variant)
    defaults, numbering = defaults_for(facts, batch.video), numbering_for(facts, options)
    source = read_source(options.prompts, options.lines, defaults.fps)
    if not source.lines:
        raise BadInput(f"{source.path} has no prompts; write one a line")

    def lines_for(members: Members) -> list[Item]:
        """The lines as they are numbered behind those of the batch, and by ids of this file that are numbers."""
        given = [number_of(str(line.get("id"))) for _, line in source.lines]
        first = max(members.next_number, *(number + 1 for number in given if number is not None), 0)
        numbered = replace(numbering, first=first, seed_of=_seed_of(members))
        return items_of(source.lines, source.path, defaults, numbered)

    def ask(members: Members) -> list[RenderItem]:
        lines = lines_for(members)
        _check_new(lines, members)
        return [as_item(line) for line in lines]

    lines = lines_for(Members())
    _check(lines, facts, batch, storage)
    additions = Additions(storage)
    additions.refresh()
    before = {item.id for item in additions.present()}
    items = additions.add(ask)
    told = notices(lines, source.path, facts)
    return Added(items=items, num_there=sum(item.id in before for item in items), notices=told)


def _check(lines: list[Item], facts: ModelFacts, batch: RenderOptions, storage: Storage) -> None:
    """Raises BadInput, naming the line, for what `render` would refuse."""
    settings = batch_settings(batch, facts, storage, lines)
    check_lines(lines, facts, batch, settings)
    if batch.cfg == 2:
        check_passes(lines, facts, settings, parts=2)


def _check_new(lines: list[Item], members: Members) -> None:
    """Raises BadInput, naming the line, for an id that another item of the batch has."""
    for line in lines:
        there = members.get(line.id)
        if there is not None and there != as_item(line):
            how = _difference(there, line)
            raise BadInput(f"{line.where}: id {line.id!r} is that of another item of the batch, {how}")


def _difference(there: RenderItem, line: Item) -> str:
    """In what an item of the batch is another one than a line."""
    if there.id != line.id:
        return repr(there.id)
    given = as_item(line)
    names = [name for name in RenderItem.model_fields if getattr(there, name) != getattr(given, name)]
    return f"which has another {' and '.join(names[:3])}"


def _seed_of(members: Members) -> Callable[[str], int | None]:
    def seed_of(item_id: str) -> int | None:
        there = members.get(item_id)
        return there.seed if there else None

    return seed_of


def who_renders(storage: Storage, *, patience_s: float = ENDING_S) -> Holder | None:
    """The driver that will see what is in the ledger by now; None for nobody. Waits for one that is at its end."""
    ends = time.monotonic() + patience_s
    while (holder := read_holder(storage)) and not holder.is_certainly_dead():
        if not holder.is_ending:
            return holder
        if time.monotonic() > ends:
            break
        time.sleep(0.2)
    return None
