"""`resca retry DIR`: render what a batch has left, with the settings and prompts that its directory remembers."""

from dataclasses import replace

from jobs.commands.render import run as render
from jobs.driver.remembered import folder_of_copies, recall
from jobs.options.batch import RetryOptions
from jobs.store.open import open_storage


def run(options: RetryOptions) -> int:
    """The exit code of the rendering. Raises BadInput if the directory holds no batch."""
    storage = open_storage(options.out)
    with folder_of_copies(storage) as folder:
        asked = recall(storage, folder)
        gangs = asked.gangs if options.gangs is None else options.gangs
        price = asked.price if options.price is None else options.price
        ours = {"env": options.env, "address": options.address, "yes": options.yes, "on_end": options.on_end}
        return render(replace(asked, gangs=gangs, price=price, retry=True, **ours))
