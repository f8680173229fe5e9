"""How a file gets its name: written in a place of its own, looked at, and only then given out; the sidecar last."""

import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from jobs.store.faults import writing
from jobs.store.items import ATTEMPTS, BatchSettings, RenderItem, Sidecar
from jobs.store.medium import MEDIA, Medium, file_of
from jobs.store.storage import Storage


@contextmanager
def attempt_place(storage: Storage, item: RenderItem) -> Iterator[Path]:
    """The attempt's own folder. Raises StorageError if there can be none."""
    with storage.workplace(f"{ATTEMPTS}/{item.id}-{secrets.token_hex(4)}") as place:
        yield place


def publish_item(
    storage: Storage,
    place: Path,
    settings: BatchSettings,
    item: RenderItem,
    frames: Iterator[np.ndarray],
    latents: torch.Tensor,
    sidecar_of: Callable[[str, int], Sidecar],
) -> Sidecar:
    """Encode `frames` in `place`, verify the file, and publish it: latents, MP4 or PNG, and then the sidecar.

    `sidecar_of` gets the file's sha256 and bytes. Raises OSError for a file that does not decode to what was asked,
    StorageError for what cannot be written, and MachineError where nothing here can do it.
    """
    medium = MEDIA[settings.medium]
    file = place / file_of("made", medium.name)
    with writing(place):
        digest = medium.write(frames, file, settings.fps, _facts(settings, item))
        verify(file, item, medium)
        sidecar = sidecar_of(digest, file.stat().st_size)
        if settings.save_latents:  # Not by the library, whose errors do not say what the system refused.
            (place / "latents").write_bytes(save({"latents": latents.cpu().contiguous()}))
    if settings.save_latents:
        storage.publish(place / "latents", item.latents)
    else:
        storage.remove(item.latents)
    storage.publish(file, settings.file(item))
    storage.write(item.sidecar, sidecar.text.encode())
    for other in MEDIA.keys() - {medium.name}:  # whose place this has taken
        storage.remove(file_of(item.name, other))
    return sidecar


def verify(file: Path, item: RenderItem, medium: Medium) -> None:
    """Raises OSError unless the file decodes to as many frames, of the size, as the item has."""
    found, asked = medium.size(file), (item.num_frames, item.height, item.width)
    if found != asked:
        raise OSError(f"the {medium.name} has frames, height and width {found}, not {asked}")


def _facts(settings: BatchSettings, item: RenderItem) -> dict[str, str]:
    """What a file says of itself, without its sidecar."""
    return {
        "prompt": item.prompt,
        "seed": str(item.seed),
        "method": settings.recipe(item.method).name,
        "model": settings.model,
        "fingerprint": settings.fingerprint(item),
    }
