"""Peers on diffusers' own pipeline, made of just a transformer and a scheduler."""

import time
from typing import Any

import torch
from diffusers import HunyuanVideoPipeline, HunyuanVideoTransformer3DModel
from torch import Tensor

from jobs.measure.gpu.model import GUIDANCE, Video, make_scheduler
from jobs.measure.gpu.timing import Step, synchronize
from jobs.measure.peers import PEERS, Peer

PLAIN = "diffusers"
RIVALS = {
    PLAIN: Peer(name=PLAIN, attach=lambda pipeline, steps: lambda: None),
    **{peer.name: peer for peer in PEERS if peer.steps is None and peer.learn is None},
}


class StepWatch:
    """Times the pipeline's steps by its callback. A step is dense if the last block projects its queries."""

    def __init__(
        self, transformer: HunyuanVideoTransformer3DModel, device: torch.device, *, stop_after: int, end: float
    ) -> None:
        self.layer = transformer.single_transformer_blocks[-1].get_submodule("attn.to_q")
        self.device, self.stop_after, self.end = device, stop_after, end
        self.steps: list[Step] = []
        self.dense = False

    def __enter__(self) -> "StepWatch":
        self.handle = self.layer.register_forward_hook(self._note_dense)
        self.started = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        self.handle.remove()

    def __call__(
        self, pipeline: HunyuanVideoPipeline, step: int, timestep: Tensor, tensors: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """At the end of a step; asks the pipeline to skip the others once enough have been run, or time is up."""
        synchronize(self.device)
        now = time.perf_counter()
        self.steps.append(Step(dense=self.dense, seconds=now - self.started))
        self.started, self.dense = now, False
        pipeline._interrupt = len(self.steps) >= self.stop_after or now > self.end
        return {}

    def _note_dense(self, *_: object) -> None:
        self.dense = True


@torch.inference_mode()
def time_rival(
    peer: Peer,
    transformer: HunyuanVideoTransformer3DModel,
    latents: Tensor,
    inputs: dict[str, Tensor],
    video: Video,
    *,
    num_steps: int,
    stop_after: int,
    end: float,
) -> tuple[Step, ...]:
    """The first steps of a peer's loop of `num_steps`, from latents `[1, C, F, H, W]` on.

    They are `stop_after` or, if fewer, those until `time.perf_counter` says `end`. Raises ImportError without
    transformers, which diffusers' pipeline asks for.
    """
    pipeline = _make_pipeline(transformer)
    watch = StepWatch(transformer, latents.device, stop_after=stop_after, end=end)
    callback: Any = watch  # which diffusers calls by four arguments, but annotates by two
    with peer.attached(pipeline, num_steps), watch:
        pipeline(
            latents=latents,
            prompt_embeds=inputs["encoder_hidden_states"],
            pooled_prompt_embeds=inputs["pooled_projections"],
            prompt_attention_mask=inputs["encoder_attention_mask"],
            height=video.height,
            width=video.width,
            num_frames=video.num_frames,
            num_inference_steps=num_steps,
            guidance_scale=GUIDANCE,
            output_type="latent",
            callback_on_step_end=callback,
            return_dict=False,
        )
    return tuple(watch.steps)


def _make_pipeline(transformer: HunyuanVideoTransformer3DModel) -> HunyuanVideoPipeline:
    missing: Any = None  # diffusers' annotations know no pipeline without its other models
    pipeline = HunyuanVideoPipeline(
        text_encoder=missing,
        tokenizer=missing,
        transformer=transformer,
        vae=missing,
        scheduler=make_scheduler(),
        text_encoder_2=missing,
        tokenizer_2=missing,
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline
