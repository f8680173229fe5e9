"""`resca add DIR PROMPTS`: add prompts to a batch that runs, or has ended."""

import time

from jobs.console import count, duration, make_console
from jobs.driver.adding import add_lines, who_renders
from jobs.errors import DONE
from jobs.options.batch import AddOptions
from jobs.store.items import RenderItem
from jobs.store.lock import SILENT_S, Holder
from jobs.store.open import open_storage
from jobs.store.storage import Storage

MOST_IDS = 5


def run(options: AddOptions) -> int:
    """Returns 0 once everything is on disk. Raises BadInput, as for a directory without a batch; then nothing is."""
    added, console = add_lines(options), make_console()
    storage = open_storage(options.out)
    there = f", {added.num_there} of them there already" if added.num_there else ""
    headline = f"{count(len(added.items), 'prompt')}{there}: {_ids(added.items)}"
    console.print("\n".join([headline, *added.notices]), soft_wrap=True)
    if added.num_there < len(added.items):
        console.print(_who(storage, who_renders(storage)), soft_wrap=True)
    return DONE


def _ids(items: list[RenderItem]) -> str:
    shown = ", ".join(item.id for item in items[:MOST_IDS])
    return shown if len(items) <= MOST_IDS else f"{shown} and so on to {items[-1].id}"


def _who(storage: Storage, holder: Holder | None) -> str:
    if holder is None:
        return f"no driver is at work; resca retry {storage} renders what was added"
    driver = f"the driver (process {holder.pid} on {holder.host})"
    silence_s = time.time() - holder.written_s
    if silence_s <= SILENT_S:
        return f"{driver} takes it up within seconds"
    return f"{driver} was last heard of {duration(silence_s)} ago; unless it takes it up, resca retry {storage} does"
