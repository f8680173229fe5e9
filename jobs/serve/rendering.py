"""What the driver behind a door is asked for: what its batch remembers, and whatever is added."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, replace

from jobs.driver.remembered import folder_of_copies
from jobs.options.batch import BatchOptions, RenderOptions
from jobs.store.additions import PROMPTS
from jobs.store.open import open_storage


def render_options(options: BatchOptions) -> RenderOptions:
    """Those of a driver that stays, without prompts."""
    given = {field.name: getattr(options, field.name) for field in fields(BatchOptions)}
    return RenderOptions(stay=True, yes=True, **given)


@contextmanager
def driver_options(options: BatchOptions) -> Iterator[RenderOptions]:
    """The options of a driver that stays; they name a file that is there in the block.

    What is wrong with a remembered prompt is told of the batch's own file.
    """
    storage = open_storage(options.out)
    with folder_of_copies(storage) as folder:
        prompts = folder / PROMPTS
        prompts.touch()
        with suppress(FileNotFoundError):
            prompts.write_bytes(storage.read(PROMPTS))
        yield replace(render_options(options), prompts=prompts)
