"""Whether files can be made and kept: a small one is encoded, decoded, published and removed."""

from pathlib import Path

from jobs.store.faults import MachineError, writing
from jobs.store.items import ATTEMPTS, CHECKPOINTS
from jobs.store.ledger import FOLDER as LEDGER
from jobs.store.logs import FAILURES
from jobs.store.logs import FOLDER as LOGS
from jobs.store.medium import Medium
from jobs.store.storage import Storage

FOLDERS = ("videos", ATTEMPTS, CHECKPOINTS, LEDGER, LOGS, FAILURES, "gallery")
REHEARSAL = "videos/.rehearsal"


def check_folders(storage: Storage) -> None:
    """Raises BadInput if one of the folders of a batch cannot be written. Leaves nothing behind."""
    storage.check_writable(FOLDERS)


def check_encoder(medium: Medium) -> bytes:
    """The smallest file of a medium. Raises MachineError, with a remedy, where none can be made."""
    try:
        return medium.smallest()
    except MachineError as error:
        raise MachineError(f"no {medium.name} can be made on this machine: {error}; {medium.remedy}") from error


def rehearse(storage: Storage, place: Path, smallest: bytes) -> None:
    """Publish a file from an attempt's folder, and remove it. Raises StorageError."""
    file = place / "rehearsal"
    with writing(place):
        file.write_bytes(smallest)
    storage.publish(file, REHEARSAL)
    storage.remove(REHEARSAL)
