"""`resca withdraw DIR ID ...`: what was added to a batch is not to be rendered any more."""

from jobs.console import count, make_console
from jobs.errors import DONE, BadInput
from jobs.options.batch import WithdrawOptions
from jobs.store.additions import Additions
from jobs.store.open import open_storage


def run(options: WithdrawOptions) -> int:
    """Returns 0 once that is on disk. Raises BadInput for an id that was not added; then nothing is withdrawn."""
    storage, console = open_storage(options.out), make_console()
    additions = Additions(storage)
    additions.refresh()
    added = {item.id for item in additions.items}
    if unknown := [each for each in options.ids if each not in added]:
        raise BadInput(f"{unknown[0]!r} was not added to {storage}, or was withdrawn; only what was added can be")
    for each in options.ids:
        additions.withdraw(each)
    console.print(f"withdrew {count(len(options.ids), 'prompt')}; what a driver is rendering of them it removes then")
    return DONE
