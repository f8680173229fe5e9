"""What a gang's ranks run: one pipeline, loaded once, that renders prompt after prompt."""

import logging
import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Literal

import torch

from caching.recipe.recipe import Recipe
from cluster.ranks import RankContext
from jobs.errors import BadInput
from jobs.machine import device_name
from jobs.rank.encoding import encode_together
from jobs.rank.load import load_pipeline
from jobs.rank.quantise import compile_obstacle
from jobs.rank.renderer import Prompt, Renderer, Sampling
from jobs.rank.stopwatch import Stopwatch, T
from jobs.rank.workload import RenderWorkload
from jobs.request.guidance import guides_of, sampling_of
from jobs.store.faults import StorageError
from jobs.store.items import FP8, SIDECAR_VERSION, VERSIONED, RenderItem, Seconds, Sidecar, World
from jobs.store.logs import attempt_log
from jobs.store.medium import MEDIA
from jobs.store.open import open_storage
from jobs.store.publish import attempt_place, publish_item
from jobs.store.rehearsal import check_encoder, rehearse
from jobs.store.storage import Storage
from parallel.group import make_group
from parallel.kernels import AUTO, Choice
from parallel.local_attention import obstacle
from parallel.rank_group import RankGroup

logger = logging.getLogger(__name__)
HOST = socket.gethostname()
# What the other ranks do for a video, as rank 0 tells them: all of it, the frames of latents that they have, or none.
Part = Literal["render", "decode", "nothing"]


@dataclass(frozen=True, kw_only=True)
class Rendered:
    """A video up to its latents; what a rank has of the last one."""

    item: RenderItem
    prompt: Prompt
    latents: torch.Tensor
    seconds: dict[str, float]


class OfAGang:
    """What sessions of ranks that share their work tell of it."""

    group: RankGroup

    @property
    def num_ended(self) -> int:
        """The collectives with the other ranks that have come to their end."""
        return self.group.num_ended

    @property
    def overdue(self) -> str | None:
        """On GPUs: the collective that did not end within the deadline, and who is missing in it."""
        return self.group.overdue


class RenderSession(OfAGang):
    """One rank's part of the rendering.

    A video that its storage refuses is kept, up to its latents: run again, it is only decoded and published. Nothing is
    rendered before the storage has taken a small file.

    `progress` is the fraction of the denoising steps that are done, `beats` counts steps and decoded pieces.
    """

    def __init__(self, workload: RenderWorkload, context: RankContext) -> None:
        self.workload, self.context, self.progress, self.beats = workload, context, 0.0, 0
        self.settings = workload.settings
        self.device_name = device_name()
        self.smallest = check_encoder(MEDIA[self.settings.medium]) if context.rank == 0 else b""
        self.rendered: Rendered | None = None
        self.layout = workload.layout
        self.attention = Choice.read(self.settings.attention or AUTO)
        self._check_attention()
        self._check_weights()
        self.group = make_group(
            self.layout, engine=workload.engine, attention=self.attention, deadline_s=workload.deadline_s
        )
        self.encodes = workload.encodes(context)
        pipeline = load_pipeline(
            self.settings.model,
            dtype=self.settings.dtype,
            device=context.device,
            revision=self.settings.revision,
            variant=self.settings.variant,
            with_text=self.encodes,
            ranks=self.group if workload.shard_weights else None,
            offload=workload.offload,
            own_code=workload.own_code,
            fp8=self.settings.weights == FP8,
        )
        self.renderer = Renderer(pipeline, self.group, workload.prompt_template, compiled=workload.compiled)
        self.engine = self.renderer.use(self.settings.method)

    def _check_attention(self) -> None:
        """Raises BadInput for a kernel that was asked for and does not work here; what is chosen need not be tried."""
        if self.attention.name == AUTO:
            return
        if without := obstacle(self.attention, torch.device(self.context.device), getattr(torch, self.settings.dtype)):
            raise BadInput(f"--attention {self.settings.attention}: {without}")

    def _check_weights(self) -> None:
        """Raises BadInput for weights in 8 bits that this GPU's compiler does not know."""
        made_by_compiled_blocks = self.settings.weights == FP8 and self.workload.compiled
        if made_by_compiled_blocks and (without := compile_obstacle(torch.device(self.context.device))):
            raise BadInput(f"--weights {FP8}: {without}; leave out --compile")

    def take_up(self, workload: RenderWorkload) -> None:
        """Serve another batch from now on, of whose workload `loads` is the same."""
        self.workload, self.settings, self.rendered = workload, workload.settings, None
        self.group.set_deadline(workload.deadline_s)
        self._use(self.settings.method)

    def run(self, item: RenderItem, attempt: int) -> dict[str, object] | None:
        """Render one item; rank 0 publishes the video and returns its sidecar."""
        with self.group.guard():
            return self._lead(item, attempt) if self.context.rank == 0 else self._follow(item)

    def _follow(self, item: RenderItem) -> None:
        """Another rank's part."""
        part: Part = self.group.broadcast(None)
        if part == "nothing":
            return
        if part == "render":
            self.rendered = self._denoise(item)
        assert self.rendered is not None
        deque(self._counted(self.renderer.frames(self.rendered.latents)), maxlen=0)  # They go to rank 0.

    def _lead(self, item: RenderItem, attempt: int) -> dict[str, object]:
        """Rank 0's part, with a place and a log of its own."""
        storage = open_storage(self.settings.out)
        with self._place(storage, item) as place, attempt_log(storage, place, item.id, attempt, host=HOST):
            logger.info("started", extra={"facts": {"layout": str(self.layout), "device": self.device_name}})
            try:
                return self._render(item, storage, place)
            except Exception:
                logger.exception("failed")
                raise

    @contextmanager
    def _place(self, storage: Storage, item: RenderItem) -> Iterator[Path]:
        """The attempt's folder, in a storage that takes files; the other ranks begin once there is one."""
        part: Part = "nothing"
        with ExitStack() as stack:
            try:
                place = stack.enter_context(attempt_place(storage, item))
                rehearse(storage, place, self.smallest)
                part = "decode" if self._has(item) else "render"
            finally:
                self.group.broadcast(part)
            yield place

    def _has(self, item: RenderItem) -> bool:
        return self.rendered is not None and self.rendered.item == item

    def _render(self, item: RenderItem, storage: Storage, place: Path) -> dict[str, object]:
        kept, self.rendered = self.rendered if self._has(item) else None, None
        rendered = kept or self._denoise(item)
        facts = {"dense": self.engine.dense_steps, "sparse": self.engine.sparse_steps}
        logger.info("kept" if kept else "denoised", extra={"facts": facts})
        clock = Stopwatch(dict(rendered.seconds))
        frames = self._counted(clock.over("decode", self.renderer.frames(rendered.latents)))
        writing = time.perf_counter()

        def sidecar_of(digest: str, num_bytes: int) -> Sidecar:
            clock.seconds["write"] = time.perf_counter() - writing - clock.seconds["decode"]
            return self._sidecar(item, rendered.prompt, clock, digest, num_bytes)

        try:
            sidecar = publish_item(storage, place, self.settings, item, frames, rendered.latents, sidecar_of)
        except StorageError:
            self.rendered = rendered
            deque(frames, maxlen=0)  # The other ranks decode to the end.
            raise
        if checkpoints := self.workload.checkpoints(item):
            checkpoints.discard()
        logger.info("published", extra={"facts": {"file": self.settings.file(item), "seconds": clock.seconds}})
        return sidecar.model_dump(mode="json")

    def _denoise(self, item: RenderItem) -> Rendered:
        """The video up to its final latents, which are the same on every rank."""
        self.progress = 0.0
        self.beats += 1
        clock, checkpoints = Stopwatch(), self.workload.checkpoints(item)
        self._use(self.settings.recipe(item.method))
        with clock.stage("encode"):
            texts = item.prompt, self.renderer.family.negative_prompt(self._sampling(item))
            prompt = encode_together(self.renderer, *texts, here=self.encodes)
        self.beats += 1
        with clock.stage("denoise"):
            latents = self.renderer.denoise(prompt, self._sampling(item), self._step, checkpoints)
        if checkpoints and checkpoints.resumed_step:
            logger.info("resumed", extra={"facts": {"step": checkpoints.resumed_step}})
        return Rendered(item=item, prompt=prompt, latents=latents, seconds=clock.seconds)

    def _use(self, method: Recipe) -> None:
        """Sample by this method from now on; nothing is done where it is that of the last video."""
        if self.renderer.engine is None or self.renderer.engine.recipe != method:
            self.engine = self.renderer.use(method)

    def _step(self, part: float) -> None:
        self.progress = part
        self.beats += 1

    def _counted(self, pieces: Iterator[T]) -> Iterator[T]:
        for piece in pieces:
            self.beats += 1
            yield piece

    def close(self) -> None:
        """Leave the sequence group."""
        self.engine.detach()
        self.group.close()

    def _sidecar(self, item: RenderItem, prompt: Prompt, clock: "Stopwatch", digest: str, num_bytes: int) -> Sidecar:
        flops, flops_full = self.renderer.flops(prompt, self._sampling(item))
        layout, settings = self.layout, self.settings
        return Sidecar(
            version=SIDECAR_VERSION,
            **{name: value for name, value in settings.asked(item).items() if name in Sidecar.model_fields},
            dense_steps=self.engine.dense_steps,
            sparse_steps=self.engine.sparse_steps,
            flops=flops,
            flops_full=flops_full,
            seconds=Seconds(**clock.seconds),
            layout=World(cfg=layout.cfg, ulysses=layout.ulysses, ring=layout.ring, world_size=layout.world_size),
            device=self.device_name,
            versions={package: version(package) for package in VERSIONED},
            sha256=digest,
            bytes=num_bytes,
            fingerprint=settings.fingerprint(item),
            cut_tokens=self.renderer.cut_tokens(item.prompt),
        )

    def _sampling(self, item: RenderItem) -> Sampling:
        return sampling_of(item, guides_of(self.settings))
