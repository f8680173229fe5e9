"""What a gang's ranks run: one pipeline, loaded once, that renders prompt after prompt."""

import logging
import socket
import time
from collections import deque
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import torch

from cluster.ranks import RankContext
from jobs.machine import device_name
from jobs.rank.checkpoint import Checkpoints
from jobs.rank.load import load_pipeline
from jobs.rank.renderer import Prompt, Renderer, Sampling
from jobs.rank.stopwatch import Stopwatch, T
from jobs.rank.workload import RenderWorkload
from jobs.store.items import SIDECAR_VERSION, RenderItem, Seconds, Sidecar, World
from jobs.store.logs import attempt_log
from jobs.store.open import open_storage
from jobs.store.publish import attempt_place, publish_video
from jobs.store.storage import Storage
from parallel.group import make_group

logger = logging.getLogger(__name__)
HOST = socket.gethostname()
VERSIONED = ("torch", "diffusers", "transformers", "xfuser", "ray")


class RenderSession:
    """One rank's part of the rendering.

    `progress` is the fraction of the denoising steps that are done, `beats` counts steps and decoded pieces.
    """

    def __init__(self, workload: RenderWorkload, context: RankContext) -> None:
        self.workload, self.context, self.progress, self.beats = workload, context, 0.0, 0
        self.settings = workload.settings
        self.device_name = device_name()
        self.layout = workload.layout
        self.group = make_group(self.layout, engine=workload.engine, deadline_s=workload.deadline_s)
        self.encodes = context.rank == 0 or workload.shard_weights  # split text encoders run on all ranks, or on none
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
        )
        self.renderer = Renderer(pipeline, self.group, workload.prompt_template, compiled=workload.compiled)
        self.engine = self.renderer.use(self.settings.method)

    def run(self, item: RenderItem, attempt: int) -> dict[str, object] | None:
        """Render one item; rank 0 publishes the video and returns its sidecar."""
        with self.group.guard():
            if self.context.rank == 0:
                return self._lead(item, attempt)
            frames = self.renderer.frames(self._denoise(item, Stopwatch(), self.workload.checkpoints(item))[1])
            deque(frames, maxlen=0)  # They go to rank 0.
            return None

    def _lead(self, item: RenderItem, attempt: int) -> dict[str, object]:
        """Rank 0's part, with a place and a log of its own."""
        storage = open_storage(self.settings.out)
        with attempt_place(storage, item) as place, attempt_log(storage, place, item.id, attempt, host=HOST):
            logger.info("started", extra={"facts": {"layout": str(self.layout), "device": self.device_name}})
            try:
                return self._render(item, storage, place)
            except Exception:
                logger.exception("failed")
                raise

    def _render(self, item: RenderItem, storage: Storage, place: Path) -> dict[str, object]:
        clock, checkpoints = Stopwatch(), self.workload.checkpoints(item)
        prompt, latents = self._denoise(item, clock, checkpoints)
        if checkpoints and checkpoints.resumed_step:
            logger.info("resumed", extra={"facts": {"step": checkpoints.resumed_step}})
        logger.info("denoised", extra={"facts": {"dense": self.engine.dense_steps, "sparse": self.engine.sparse_steps}})
        frames = self._counted(clock.over("decode", self.renderer.frames(latents)))
        writing = time.perf_counter()

        def sidecar_of(digest: str, num_bytes: int) -> Sidecar:
            clock.seconds["write"] = time.perf_counter() - writing - clock.seconds["decode"]
            return self._sidecar(item, prompt, clock, digest, num_bytes)

        sidecar = publish_video(storage, place, self.settings, item, frames, latents, sidecar_of)
        if checkpoints:
            checkpoints.discard()
        logger.info("published", extra={"facts": {"video": item.video, "seconds": clock.seconds}})
        return sidecar.model_dump(mode="json")

    def _denoise(
        self, item: RenderItem, clock: "Stopwatch", checkpoints: Checkpoints | None
    ) -> tuple[Prompt, torch.Tensor]:
        """The encoded prompt, and the final latents, which are the same on every rank."""
        self.progress = 0.0
        self.beats += 1
        with clock.stage("encode"):
            prompt = self._encode(item.prompt)
        self.beats += 1
        with clock.stage("denoise"):
            latents = self.renderer.denoise(prompt, self._sampling(item), self._step, checkpoints)
        return prompt, latents

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

    def _encode(self, text: str) -> Prompt:
        """Encode on the ranks that can; all take the result of rank 0."""
        self.group.mark("encode")
        prompt = self.renderer.encode(text) if self.encodes else None
        tokens, pooled = self.group.broadcast([prompt.tokens, prompt.pooled] if prompt else None)
        return Prompt(tokens=tokens, pooled=pooled)

    def _sidecar(self, item: RenderItem, prompt: Prompt, clock: "Stopwatch", digest: str, num_bytes: int) -> Sidecar:
        flops, flops_full = self.renderer.flops(prompt, self._sampling(item))
        layout, settings = self.layout, self.settings
        return Sidecar(
            version=SIDECAR_VERSION,
            **item.model_dump(),
            **settings.model_dump(include={"model", "revision", "variant", "fps", "dtype", "guidance"}),
            method=settings.method.describe(),
            dense_steps=self.engine.dense_steps,
            sparse_steps=self.engine.sparse_steps,
            flops=flops,
            flops_full=flops_full,
            seconds=Seconds(**clock.seconds),
            layout=World(ulysses=layout.ulysses, ring=layout.ring, world_size=layout.world_size),
            device=self.device_name,
            versions={package: version(package) for package in VERSIONED},
            sha256=digest,
            bytes=num_bytes,
            fingerprint=settings.fingerprint(item),
            cut_tokens=self.renderer.cut_tokens(item.prompt),
        )

    def _sampling(self, item: RenderItem) -> Sampling:
        return Sampling(
            seed=item.seed,
            height=item.height,
            width=item.width,
            num_frames=item.num_frames,
            steps=item.steps,
            guidance=self.settings.guidance,
        )
