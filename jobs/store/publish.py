"""How a file gets its name: written in a place of its own, looked at, and only then given out; the sidecar last."""

import logging
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from jobs.store.faults import reason, writing
from jobs.store.items import ATTEMPTS, BatchSettings, RenderItem, Sidecar
from jobs.store.medium import MEDIA, VIDEO, Medium, file_of
from jobs.store.poster import BIG_BYTES, OneFrame, poster
from jobs.store.storage import Storage

logger = logging.getLogger(__name__)


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
    """Encode `frames` in `place`, verify the file, and publish it: latents, poster, MP4 or PNG, and then the sidecar.

    A poster that cannot be had is no loss. `sidecar_of` gets the file's sha256 and bytes. Raises OSError for a file
    that does not decode to what was asked, StorageError for what cannot be written, and MachineError where nothing here
    can do it.
    """
    medium = MEDIA[settings.medium]
    file, kept = place / file_of("made", medium.name), OneFrame(frames, item.num_frames // 2)
    with writing(place):
        digest = medium.write(iter(kept), file, settings.fps_of(item), _facts(settings, item))
        verify(file, item, medium)
        sidecar = sidecar_of(digest, file.stat().st_size)
        if settings.save_latents:  # Not by the library, whose errors do not say what the system refused.
            (place / "latents").write_bytes(save({"latents": latents.cpu().contiguous()}))
    if settings.save_latents:
        storage.publish(place / "latents", item.latents)
    else:
        storage.remove(item.latents)
    if _publish_poster(storage, item, kept.frame if medium is VIDEO or sidecar.bytes > BIG_BYTES else None):
        sidecar = sidecar.model_copy(update={"poster": True})
    storage.publish(file, settings.file(item))
    storage.write(item.sidecar, sidecar.text.encode())
    for other in MEDIA.keys() - {medium.name}:  # whose place this has taken
        storage.remove(file_of(item.name, other))
    return sidecar


def _publish_poster(storage: Storage, item: RenderItem, frame: np.ndarray | None) -> bool:
    """Whether there is one now. Another one's, of what this takes the place of, must not stay."""
    try:
        if frame is not None:
            storage.write(item.poster, poster(frame))
            return True
        storage.remove(item.poster)
    except OSError as error:
        logger.warning("no poster: %s", reason(error))
        with suppress(OSError):
            storage.remove(item.poster)
    return False


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
