"""What exports of images have in common: the batch's images by prompt, and what is said at the end."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from jobs.console import count, make_console
from jobs.driver.export import Finished, by_title, finished, unfinished
from jobs.driver.remembered import export_names
from jobs.errors import DONE, PARTIAL, BadInput
from jobs.store.ledger import read_state
from jobs.store.medium import IMAGE
from jobs.store.open import open_storage
from jobs.store.storage import Storage

MOST_NAMES = 3


@dataclass(frozen=True, kw_only=True)
class Images:
    """The whole images of a batch by prompt, or what stands for it; what is broken, and what is not done."""

    batch: Storage
    by_title: dict[str, list[Finished]]
    broken: list[str]
    unfinished: Counter[str]


def read_images(out: str, *, judge: str) -> Images:
    """Raises BadInput if nothing is finished, or what is are videos."""
    batch = open_storage(out)
    state = read_state(batch)
    found, broken = finished(batch, state, IMAGE, judge=judge)
    if not found:
        raise BadInput(f"{batch} has no finished images; nothing to export")
    return Images(
        batch=batch, by_title=by_title(found, export_names(batch)), broken=broken, unfinished=unfinished(state)
    )


def conclude(images: Images, number: int, to: Path, said: Sequence[str] = ()) -> int:
    """Say what was laid out and what is missing. Gives 3 if anything is, else 0."""
    console = make_console()
    console.print(f"{count(number, 'image')} of {count(len(images.by_title), 'prompt')} in {to}", soft_wrap=True)
    missing = list(said)
    if images.broken:
        more = ", ..." if len(images.broken) > MOST_NAMES else ""
        names = ", ".join(images.broken[:MOST_NAMES])
        missing.append(f"{count(len(images.broken), 'image')} missing or damaged, left out ({names}{more})")
    if images.unfinished:
        parts = ", ".join(f"{count(number, 'image')} {status}" for status, number in sorted(images.unfinished.items()))
        missing.append(f"the batch is not done: {parts}")
    for sentence in missing:
        console.print(sentence, soft_wrap=True)
    return PARTIAL if missing else DONE
