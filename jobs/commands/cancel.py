"""`resca cancel DIR`: ask the driver of a running batch to stop, wherever it runs, and wait until it has."""

import getpass
import os
import socket
import time

from jobs.console import make_console
from jobs.driver.cancellation import NAME, ask
from jobs.errors import DONE, BadInput, InfrastructureError
from jobs.options.batch import CancelOptions
from jobs.store.ledger import read_state
from jobs.store.lock import read_holder
from jobs.store.open import open_storage

PATIENCE_S = 60.0


def run(options: CancelOptions) -> int:
    """Returns 0 when the driver is gone. Raises BadInput if there is none, InfrastructureError if it does not end."""
    storage, console = open_storage(options.out), make_console()
    holder = read_holder(storage)
    if holder is None or holder.is_certainly_dead():
        raise BadInput(f"no driver works on {storage}")
    ask(storage, by=f"{_user()} on {socket.gethostname()}")
    console.print(f"asked process {holder.pid} on {holder.host} to stop", soft_wrap=True)
    ends = time.monotonic() + PATIENCE_S
    while (now := read_holder(storage)) and now.token == holder.token and not now.is_certainly_dead():
        if time.monotonic() > ends:
            raise InfrastructureError(f"the driver on {holder.host} has not stopped within {PATIENCE_S:.0f} s")
        time.sleep(0.2)
    storage.remove(NAME)  # The driver may have ended before it looked.
    ended = read_state(storage).ended
    if ended and ended["how"] != "stopped":
        console.print(f"it had come to its end by itself before it was stopped: {ended['how']}")
    else:
        console.print("stopped; what is finished stays, and resca retry takes up the rest")
    return DONE


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # Containers run as users without a name.
        return f"user {os.getuid()}"
