"""An item, and a finished video of it, as a batch's own code publishes them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from jobs.store.items import RenderItem, Seconds, Sidecar, World
from jobs.store.known import Done
from jobs.store.ledger import Ledger
from jobs.store.open import open_storage
from jobs.store.publish import attempt_place, publish_video


def item(directory: Path | str, **changes: Any) -> RenderItem:
    values: dict[str, Any] = dict(
        id="0000", prompt="a red ball", seed=0, height=16, width=16, num_frames=5, fps=8, steps=4, guidance=6.0,
        model="demo", revision="abc", method={"name": "full"}, dtype="float32", out=str(directory),
        save_latents=False,
    )  # fmt: skip
    return RenderItem(**(values | changes))


def sidecar_of(item: RenderItem, digest: str, num_bytes: int) -> Sidecar:
    return Sidecar(
        **item.model_dump(include=set(Sidecar.model_fields)),
        dense_steps=4, sparse_steps=0, flops=8.0, flops_full=8.0, versions={}, sha256=digest, bytes=num_bytes,
        seconds=Seconds(encode=0.1, denoise=2, decode=0.3, write=0.1), device="cpu",
        layout=World(ulysses=1, ring=1, world_size=1), fingerprint=item.fingerprint,
    )  # fmt: skip


def publish(item: RenderItem) -> Sidecar:
    storage, latents = open_storage(item.out), torch.zeros(1, 4, 2, 2, 2)
    shape = item.num_frames, item.height, item.width, 3
    with attempt_place(storage, item) as place:
        frames = iter([np.zeros(shape, np.uint8)])
        return publish_video(storage, place, item, frames, latents, lambda *facts: sidecar_of(item, *facts))


def finish(one: RenderItem) -> Done:
    """As a driver does: published, then written down."""
    storage = open_storage(one.out)
    sidecar = publish(one)
    stored = storage.stored(one.video)
    assert stored is not None
    done = Done.of_sidecar(sidecar, one.name, stored.stamp)
    ledger = Ledger(storage)
    ledger.add("done", **done.facts())
    ledger.flush()
    return done
