"""Checkpoints of a video's denoising loop, so that one that was killed goes on where it was, to the same bits.

Each rank writes the state of its engine and its latents to a file of its own. A checkpoint counts once rank 0 has
written its marker, which it does when all ranks have their files on storage.
"""

import hashlib
import json
import logging
from collections.abc import Iterator

import diffusers
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from caching.engine import Engine
from caching.snapshot import STATE_VERSION, Snapshot
from caching.state_dict import StateDict
from jobs.store.files import sha256
from jobs.store.storage import Storage
from parallel.rank_group import RankGroup

logger = logging.getLogger(__name__)


class Conditions(BaseModel):
    """What has to be the same for a generation to go on to the same bits."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fingerprint: str
    layout: str  # Ulysses x Ring, behind the parts of guidance where there are several
    device: str
    versions: dict[str, str]  # of torch, of diffusers, and of the state that caching takes down


class Marker(BaseModel):
    """A complete checkpoint: the steps that are done, and the digest of each rank's file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    step: int
    conditions: Conditions
    sha256: list[str]


class Checkpoints:
    """The checkpoints of one video, in a folder of a storage that every rank sees; all ranks call the same methods.

    One is written whenever `every` dense steps have been made since the last, whatever kind of step comes next; older
    ones are then removed. The loop waits for it. A rank writes its latents and what its cache holds, and reads that
    once more for the digest; from a GPU it is copied to host memory first. For HunyuanVideo at 480x640x65 in bfloat16
    that is 5 MB for `full`, 16 MB for `auto`, 1.9 GB for `resca` (as much on each of several ranks) and 20 GB, shared
    by the ranks, for `taylorseer`, which caches every module.

    Args:
        fingerprint: a hash of everything that decides the bits of the latents, but for layout, device and versions: the
            prompt, the sampling, the method, the model and its number format, the attention engine, compilation.
    """

    def __init__(self, storage: Storage, folder: str, every: int, fingerprint: str) -> None:
        if every < 1:
            raise ValueError(f"a checkpoint is written every 1 or more dense steps, not every {every}")
        self.files, self.every, self.fingerprint = CheckpointFiles(storage, folder), every, fingerprint
        self.resumed_step = 0  # the steps that did not have to be made again
        self.saved_bytes = 0  # of this rank's part of the last checkpoint
        self._dense_steps = 0  # that the last checkpoint holds

    def resume(self, engine: Engine, group: RankGroup) -> tuple[Tensor, StateDict] | None:
        """Go on from the newest checkpoint that is whole and of this very generation, after the engine's `begin`.

        Gives this rank's latents at the end of the engine's last step, and what the solver kept of it; None if there is
        no such checkpoint.
        """
        group.mark("checkpoint")
        self.resumed_step = self._dense_steps = 0
        for marker in self._usable(engine, group):
            snapshot = self.files.read(marker, group.rank)
            everyone_has_it = all(map(any, _from_all(bytes([snapshot is not None]), group)))
            if snapshot is not None and everyone_has_it:
                restored = engine.restore(snapshot)
                self.resumed_step, self._dense_steps = engine.step, engine.dense_steps
                return restored
        return None

    def step_done(self, engine: Engine, group: RankGroup, latents: Tensor, solver: StateDict) -> None:
        """Write a checkpoint at the end of a step, if one is due; a failure is logged, and the next one tries again."""
        if engine.dense_steps - self._dense_steps < self.every or engine.step == len(engine.times):
            return
        self._dense_steps = engine.dense_steps
        snapshot = engine.snapshot(latents, solver)
        self.saved_bytes = snapshot.num_bytes
        group.mark("checkpoint")
        digests = _from_all(self.files.write(engine.step, group.rank, snapshot), group)
        if group.rank == 0 and all(map(any, digests)):
            sha256 = [digest.hex() for digest in digests]
            self.files.complete(Marker(step=engine.step, conditions=self._conditions(engine, group), sha256=sha256))

    def discard(self) -> None:
        """Remove all checkpoints, once the video is done; one rank is enough. A later driver removes the rest."""
        try:
            self.files.remove_all_but(None)
        except OSError as error:
            logger.warning("The checkpoints of a finished video could not be removed: %s", error)

    def _usable(self, engine: Engine, group: RankGroup) -> list[Marker]:
        """The complete checkpoints of this generation, the newest first, as rank 0 finds them."""
        texts = None
        if group.rank == 0:
            ours = self._conditions(engine, group)
            texts = [marker.model_dump_json() for marker in self.files.markers() if _fits(marker, ours)]
        return [Marker.model_validate_json(text) for text in group.broadcast(texts)]

    def _conditions(self, engine: Engine, group: RankGroup) -> Conditions:
        of_a_pass = f"{group.layout.ulysses}x{group.layout.ring}"
        layout = f"{group.layout.cfg}x{of_a_pass}" if group.layout.cfg > 1 else of_a_pass
        versions = {"torch": torch.__version__, "diffusers": diffusers.__version__, "caching": str(STATE_VERSION)}
        return Conditions(fingerprint=self.fingerprint, layout=layout, device=_device(engine), versions=versions)


class CheckpointFiles:
    """Where the parts and the markers of one video's checkpoints lie: all that touches storage."""

    def __init__(self, storage: Storage, folder: str) -> None:
        self.storage, self.folder = storage, folder

    def markers(self) -> Iterator[Marker]:
        """Of all complete checkpoints, the newest first; damaged ones are left out, with a warning."""
        try:
            names = self.storage.folder(self.folder)
        except OSError as error:
            logger.warning("The checkpoints in %s are not used: %s", self.folder, error)
            return
        for name in sorted((name for name in names if name.endswith(".json")), reverse=True):
            try:
                yield Marker.model_validate_json(self.storage.read(f"{self.folder}/{name}"))
            except (OSError, ValidationError, UnicodeDecodeError) as error:
                logger.warning("The checkpoint %s is not used: %s", name, error)

    def read(self, marker: Marker, rank: int) -> Snapshot | None:
        """A rank's part; None, with a warning, if it is missing or not what was written."""
        name = self._part(marker.step, rank)
        try:
            with self.storage.fetched(name) as path:
                if sha256(path) != marker.sha256[rank]:
                    raise OSError(f"{name} is damaged")
                with safe_open(path, framework="pt") as file:
                    structure, names = json.loads(file.metadata()["structure"]), file.keys()
                    return Snapshot(tensors={name: file.get_tensor(name) for name in names}, structure=structure)
        except OSError as error:
            logger.warning("The checkpoint after step %d is not used: %s", marker.step, error)
            return None

    def write(self, step: int, rank: int, snapshot: Snapshot) -> bytes:
        """Write a rank's part; gives its SHA-256 digest, or zeros, with a warning, if that fails."""
        name = self._part(step, rank)
        try:
            with self.storage.workplace(f"{self.folder}/.{_name(step)}.rank-{rank}") as place:
                save_file(snapshot.tensors, place / "part", metadata={"structure": json.dumps(snapshot.structure)})
                digest = sha256(place / "part")
                self.storage.publish(place / "part", name)
        except (OSError, SafetensorError) as error:
            logger.warning("The checkpoint %s could not be written: %s", name, error)
            return bytes(hashlib.sha256().digest_size)
        return bytes.fromhex(digest)

    def complete(self, marker: Marker) -> None:
        """Make a checkpoint count whose parts are all written, and remove the others."""
        name = f"{self.folder}/{_name(marker.step)}.json"
        try:
            self.storage.write(name, f"{marker.model_dump_json(indent=2)}\n".encode())
            self.remove_all_but(marker.step)
        except OSError as error:
            logger.warning("The checkpoint %s could not be completed: %s", name, error)

    def remove_all_but(self, step: int | None) -> None:
        """Remove checkpoints, whole or torn, and the folder if nothing is left in it.

        Markers go first, so that none stands for what is gone.
        """
        kept = "" if step is None else _name(step)
        names = {*self.storage.folder(self.folder), *self.storage.folders(self.folder)}
        ours = {name for name in names if name.lstrip(".").startswith("step-")}
        old = {name for name in ours if name.lstrip(".").partition(".")[0] != kept}
        for name in sorted(old, key=lambda name: not name.endswith(".json")):
            self.storage.remove(f"{self.folder}/{name}")
        if names <= old:
            self.storage.remove(self.folder)

    def _part(self, step: int, rank: int) -> str:
        return f"{self.folder}/{_name(step)}.rank-{rank}.safetensors"


def _name(step: int) -> str:
    return f"step-{step:06}"


def _fits(marker: Marker, ours: Conditions) -> bool:
    """Whether a checkpoint is of this generation; says what is different."""
    theirs = dict(marker.conditions)
    different = [name for name, value in dict(ours).items() if theirs[name] != value]
    if different:
        logger.warning("The checkpoint after step %d is not used: another %s.", marker.step, ", ".join(different))
    return not different


def _from_all(value: bytes, group: RankGroup) -> list[bytes]:
    """The ranks' values, of the same length, in rank order on every rank."""
    rows = group.gather_from_all(torch.tensor(list(value), dtype=torch.uint8))
    return [bytes(row.tolist()) for row in rows]


def _device(engine: Engine) -> str:
    """What kernels are chosen by: the GPU, or what the processor's vector units can do."""
    device = engine.device
    return torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
