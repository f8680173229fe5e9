"""A batch, an item, and a finished video of it, as a batch's own code publishes them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from caching.recipe.recipe import RECIPES
from jobs.store.items import SIDECAR_VERSION, BatchSettings, RenderItem, Seconds, Sidecar, World
from jobs.store.known import Done
from jobs.store.ledger import Ledger
from jobs.store.open import open_storage
from jobs.store.publish import attempt_place, publish_item


def settings(directory: Path | str, **changes: Any) -> BatchSettings:
    values: dict[str, Any] = dict(
        model="demo", revision="abc", method=RECIPES["full"], dtype="float32", fps=8, guidance=6.0, out=str(directory),
        save_latents=False,
    )  # fmt: skip
    return BatchSettings(**(values | changes))


def item(**changes: Any) -> RenderItem:
    values = dict(id="0000", prompt="a red ball", seed=0, height=16, width=16, num_frames=5, steps=4)
    return RenderItem(**(values | changes))


def sidecar_of(batch: BatchSettings, item: RenderItem, digest: str = "0" * 64, num_bytes: int = 1) -> Sidecar:
    return Sidecar(
        version=SIDECAR_VERSION,
        **{name: value for name, value in batch.asked(item).items() if name in Sidecar.model_fields},
        dense_steps=4, sparse_steps=0, flops=8.0, flops_full=8.0, versions={}, sha256=digest, bytes=num_bytes,
        seconds=Seconds(encode=0.1, denoise=2, decode=0.3, write=0.1), device="cpu",
        layout=World(ulysses=1, ring=1, world_size=1), fingerprint=batch.fingerprint(item),
    )  # fmt: skip


def publish(batch: BatchSettings, item: RenderItem) -> Sidecar:
    storage, latents = open_storage(batch.out), torch.zeros(1, 4, 2, 2, 2)
    shape = item.num_frames, item.height, item.width, 3
    with attempt_place(storage, item) as place:
        frames = iter([np.zeros(shape, np.uint8)])
        return publish_item(
            storage, place, batch, item, frames, latents, lambda *facts: sidecar_of(batch, item, *facts)
        )


def done_line(item_id: str, **changes: Any) -> dict[str, Any]:
    """What a driver writes down of a finished video."""
    one = item(id=item_id)
    return Done.of_sidecar(sidecar_of(settings("out"), one), one.name).for_ledger() | changes


def finish(batch: BatchSettings, one: RenderItem) -> Done:
    """As a driver does: published, then written down."""
    storage = open_storage(batch.out)
    sidecar = publish(batch, one)
    stored = storage.stored(batch.file(one))
    assert stored is not None
    done = Done.of_sidecar(sidecar, one.name, stored.stamp)
    ledger = Ledger(storage)
    ledger.add("done", **done.for_ledger())
    ledger.flush()
    return done
