"""`resca retry DIR`: render what a batch has left, with the settings and prompts that its directory remembers."""

import tempfile
from dataclasses import replace
from pathlib import Path

from jobs.commands.render import run as render
from jobs.driver.remembered import recall
from jobs.errors import BadInput
from jobs.options.batch import RetryOptions
from jobs.store.open import open_storage


def run(options: RetryOptions) -> int:
    """The exit code of the rendering. Raises BadInput if the directory holds no batch."""
    storage = open_storage(options.out)
    with tempfile.TemporaryDirectory(prefix="resca-") as folder:
        asked = recall(storage, Path(folder))
        gangs = asked.gangs if options.gangs is None else options.gangs
        price = asked.price if options.price is None else options.price
        ours = {"env": options.env, "address": options.address, "yes": options.yes, "on_end": options.on_end}
        try:
            return render(replace(asked, gangs=gangs, price=price, retry=True, **ours))
        except BadInput as error:  # What has been copied is named by its place in the batch.
            raise BadInput(str(error).replace(folder, str(storage))) from error
