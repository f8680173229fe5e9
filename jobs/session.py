"""What a gang's ranks run: one pipeline, loaded once, that renders prompt after prompt."""

import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import save

from caching.group import LocalGroup
from caching.recipe import Recipe
from cluster.ranks import RankContext
from jobs.load import load_pipeline
from jobs.outputs import RenderItem, Seconds, Sidecar, World, write_sidecar
from jobs.pipeline import Prompt, Renderer, Sampling
from jobs.video import publish, write_video
from parallel.layout import Layout

T = TypeVar("T")
VERSIONED = ("torch", "diffusers", "transformers", "xfuser", "ray")


@dataclass(frozen=True, kw_only=True)
class RenderWorkload:
    """How each rank builds its session; sent to the workers."""

    model: str
    revision: str | None
    prompt_template: dict[str, Any] | None
    dtype: str
    layout: Layout
    recipe: Recipe
    compiled: bool = False
    engine: str = "xfuser"
    deadline_s: float = 600
    shard_weights: bool = False
    offload: bool = False

    def __call__(self, context: RankContext) -> "RenderSession":
        return RenderSession(self, context)


class RenderSession:
    """One rank's part of the rendering; `progress` is the fraction of the denoising steps that are done."""

    def __init__(self, workload: RenderWorkload, context: RankContext) -> None:
        self.workload, self.context, self.progress = workload, context, 0.0
        self.layout = workload.layout
        self.group = self._join()
        self.sharded = workload.shard_weights and self.group.world_size > 1
        self.encodes = context.rank == 0 or self.sharded  # split text encoders run on all ranks, or on none
        pipeline = load_pipeline(
            workload.model,
            dtype=workload.dtype,
            device=context.device,
            revision=workload.revision,
            with_text=self.encodes,
            ranks=self.group if self.sharded else None,
            offload=workload.offload,
        )
        self.renderer = Renderer(pipeline, self.group, workload.prompt_template, compiled=workload.compiled)
        self.engine = self.renderer.use(workload.recipe)

    def run(self, item: dict[str, Any]) -> dict[str, Any] | None:
        """Render one `RenderItem`; rank 0 writes the video and returns its sidecar."""
        with self.group.guard() if self.group.world_size > 1 else nullcontext():
            return self._run(item)

    def _run(self, item: dict[str, Any]) -> dict[str, Any] | None:
        job, clock = RenderItem(**item), Stopwatch()
        self.progress = 0.0
        with clock.stage("encode"):
            prompt = self._encode(job.prompt)
        with clock.stage("denoise"):
            latents = self.renderer.denoise(
                prompt, sampling_of(job), on_progress=lambda part: setattr(self, "progress", part)
            )
        frames = clock.over("decode", self.renderer.frames(latents))
        if self.context.rank == 0:
            return self._publish(job, prompt, latents, frames, clock)
        deque(frames, maxlen=0)  # They go to rank 0.
        return None

    def close(self) -> None:
        """Leave the sequence group."""
        self.engine.detach()
        if self.group.world_size > 1:
            self.group.close()

    def _join(self) -> Any:
        if self.layout.world_size == 1:
            return LocalGroup()
        from parallel.group import SequenceGroup

        return SequenceGroup(self.layout, engine=self.workload.engine, deadline_s=self.workload.deadline_s)

    def _encode(self, text: str) -> Prompt:
        """Encode on the ranks that can; all take the result of rank 0."""
        self.group.mark("encode")
        prompt = self.renderer.encode(text) if self.encodes else None
        if self.group.world_size == 1:
            assert prompt is not None
            return prompt
        tokens, pooled = self.group.broadcast([prompt.tokens, prompt.pooled] if prompt else None)
        return Prompt(tokens=tokens, pooled=pooled)

    def _publish(
        self, job: RenderItem, prompt: Prompt, latents: torch.Tensor, frames: Iterator[np.ndarray], clock: "Stopwatch"
    ) -> dict[str, Any]:
        """Write the latents, the video as it is decoded, and last the sidecar."""
        with clock.stage("write"):
            _write_latents(latents if job.save_latents else None, job.latents)
            digest = write_video(frames, job.video, fps=job.fps, metadata={"title": job.prompt})
        clock.seconds["write"] -= clock.seconds["decode"]
        sidecar = self._sidecar(job, prompt, clock, digest)
        write_sidecar(sidecar, job.sidecar)
        return sidecar.model_dump(mode="json")

    def _sidecar(self, job: RenderItem, prompt: Prompt, clock: "Stopwatch", digest: str) -> Sidecar:
        flops, flops_full = self.renderer.flops(prompt, sampling_of(job))
        return Sidecar(
            **job.model_dump(include=set(Sidecar.model_fields) & set(RenderItem.model_fields)),
            dense_steps=self.engine.dense_steps,
            sparse_steps=self.engine.sparse_steps,
            flops=flops,
            flops_full=flops_full,
            seconds=Seconds(**clock.seconds),
            layout=World(
                ulysses=self.layout.ulysses,
                ring=self.layout.ring,
                world_size=self.layout.world_size,
                gangs=job.gangs,
            ),
            versions={package: version(package) for package in VERSIONED},
            sha256=digest,
            bytes=job.video.stat().st_size,
            fingerprint=job.fingerprint,
        )


def _write_latents(latents: torch.Tensor | None, path: Path) -> None:
    """Write the final latents, or remove those of an earlier rendering."""
    if latents is None:
        path.unlink(missing_ok=True)
        return
    partial = path.with_name(f".{path.name}.part")
    partial.write_bytes(save({"latents": latents.cpu().contiguous()}))
    publish(partial, path)


def sampling_of(job: RenderItem) -> Sampling:
    """The part of an item that the denoising loop needs."""
    return Sampling(**job.model_dump(include={field.name for field in fields(Sampling)}))


@dataclass
class Stopwatch:
    """Seconds by stage; work on a GPU is waited for."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str):
        """Time the block."""
        started = time.perf_counter()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    def over(self, name: str, pieces: Iterator[T]) -> Iterator[T]:
        """The same pieces; the time that they take to make counts for the stage."""
        while True:
            with self.stage(name):
                piece = next(pieces, None)
            if piece is None:
                return
            yield piece
