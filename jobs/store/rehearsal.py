"""Whether videos can be made and kept: two frames are encoded, decoded, published and removed."""

import tempfile
from pathlib import Path

import numpy as np

from jobs.store.faults import MachineError, writing
from jobs.store.items import ATTEMPTS, CHECKPOINTS
from jobs.store.ledger import FOLDER as LEDGER
from jobs.store.logs import FOLDER as LOGS
from jobs.store.mp4 import VideoFacts, probe, write_video
from jobs.store.storage import Storage

FOLDERS = ("videos", ATTEMPTS, CHECKPOINTS, LEDGER, LOGS, "failures", "gallery")
REMEDY = "pip install --force-reinstall imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE to an ffmpeg with libx264"
REHEARSAL = "videos/.two-frames.mp4"


def check_folders(storage: Storage) -> None:
    """Raises BadInput if one of the folders of a batch cannot be written. Leaves nothing behind."""
    storage.check_writable(FOLDERS)


def encode_two_frames() -> tuple[bytes, VideoFacts]:
    """A whole MP4, and what a decoder sees in it. Raises MachineError where videos cannot be made."""
    what = "the folder for temporary files"
    with writing(what), tempfile.TemporaryDirectory(prefix="resca-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "video.mp4"
        write_video(np.zeros((2, 16, 16, 3), np.uint8), path, fps=8)
        facts = probe(path)
        if facts.num_frames != 2:
            raise MachineError(f"ffmpeg reads {facts.num_frames} frames where it wrote 2")
        return path.read_bytes(), facts


def check_encoder() -> bytes:
    """The MP4 of two frames. Raises MachineError, with a remedy, where videos cannot be made."""
    try:
        return encode_two_frames()[0]
    except MachineError as error:
        raise MachineError(f"no video can be made on this machine: {error}; {REMEDY}") from error


def rehearse(storage: Storage, place: Path, two_frames: bytes) -> None:
    """Publish two frames from an attempt's folder, and remove them. Raises StorageError."""
    file = place / "two-frames.mp4"
    with writing(place):
        file.write_bytes(two_frames)
    storage.publish(file, REHEARSAL)
    storage.remove(REHEARSAL)
