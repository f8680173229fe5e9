"""How a video gets its name: written in a place of its own, looked at, and only then given out; the sidecar last."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from jobs.store.faults import writing
from jobs.store.items import ATTEMPTS, BatchSettings, RenderItem, Sidecar
from jobs.store.mp4 import probe, write_video
from jobs.store.storage import Storage


@contextmanager
def attempt_place(storage: Storage, item: RenderItem) -> Iterator[Path]:
    """The attempt's own folder. Raises StorageError if there can be none."""
    with storage.workplace(f"{ATTEMPTS}/{item.id}-{secrets.token_hex(4)}") as place:
        yield place


def publish_video(
    storage: Storage,
    place: Path,
    settings: BatchSettings,
    item: RenderItem,
    frames: Iterator[np.ndarray],
    latents: torch.Tensor,
    sidecar_of: Callable[[str, int], Sidecar],
) -> Sidecar:
    """Encode `frames` in `place`, verify the file, and publish it: latents, MP4, and then the sidecar.

    `sidecar_of` gets the file's sha256 and bytes. Raises OSError for a file that does not decode to what was asked,
    StorageError for what cannot be written, and MachineError where there is no ffmpeg to do it.
    """
    file = place / "video.mp4"
    tags = {"title": item.prompt, "comment": settings.fingerprint(item)}
    with writing(place):
        digest = write_video(frames, file, fps=settings.fps, metadata=tags)
        verify(file, item)
        sidecar = sidecar_of(digest, file.stat().st_size)
        if settings.save_latents:  # Not by the library, whose errors do not say what the system refused.
            (place / "latents").write_bytes(save({"latents": latents.cpu().contiguous()}))
    if settings.save_latents:
        storage.publish(place / "latents", item.latents)
    else:
        storage.remove(item.latents)
    storage.publish(file, item.video)
    storage.write(item.sidecar, sidecar.text.encode())
    return sidecar


def verify(file: Path, item: RenderItem) -> None:
    """Raises OSError unless the file decodes to as many frames, of the size, as the item has."""
    facts = probe(file)
    found = facts.num_frames, facts.height, facts.width
    asked = item.num_frames, item.height, item.width
    if found != asked:
        raise OSError(f"the MP4 has frames, height and width {found}, not {asked}")
