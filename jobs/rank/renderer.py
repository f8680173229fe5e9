"""A loaded pipeline joined with a recipe and a sequence group: encode, denoise, decode.

Legend: B batch, C latent channels, F H W latent frames, height and width, L text tokens, D text width.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, HunyuanVideoPipeline
from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE
from torch import Tensor

from caching.engine import Engine
from caching.flops import flops_of_prompt
from caching.models import adapter_for, family
from caching.recipe.recipe import RECIPES, Recipe
from caching.site import Timed, untimed
from jobs.errors import BadInput
from jobs.rank.checkpoint import Checkpoints
from jobs.rank.offload import on_device
from parallel.rank_group import RankGroup
from parallel.single import SingleGroup
from parallel.vae import decode


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """An encoded prompt without padding: token features `[1, L, D]` and a pooled feature `[1, D]`."""

    tokens: Tensor
    pooled: Tensor

    @property
    def num_tokens(self) -> int:
        return self.tokens.shape[1]


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """What to sample: a seed, a size in pixels and frames, denoising steps, and the embedded guidance scale."""

    seed: int
    height: int
    width: int
    num_frames: int
    steps: int
    guidance: float


class Renderer:
    """Renders with one recipe at a time; every rank of a gang calls the same methods in the same order."""

    def __init__(
        self,
        pipeline: HunyuanVideoPipeline,
        group: RankGroup | None = None,
        template: dict[str, Any] | None = None,
        *,
        compiled: bool = False,
    ) -> None:
        self.pipeline, self.compiled = pipeline, compiled
        self.group: RankGroup = group or SingleGroup()
        self.template = template or DEFAULT_PROMPT_TEMPLATE
        self.engine: Engine | None = None

    def use(self, method: Recipe, *, timed: Timed = untimed) -> Engine:
        """Sample with this recipe from now on; `timed` is told of the parts of each step."""
        if self.engine is not None:
            self.engine.detach()
        compiler = "inductor" if self.compiled else None
        self.engine = Engine(self.pipeline.transformer, method, self.group, compiler=compiler, timed=timed)
        return self.engine

    def release(self) -> HunyuanVideoPipeline:
        """The pipeline as it was loaded, for others to work on; `use` takes it back."""
        if self.engine is not None:
            self.engine.detach()
            self.engine = None
        return self.pipeline

    @torch.no_grad()
    def encode(self, prompt: str) -> Prompt:
        """Run the text encoders; only where they are loaded, and on all ranks where their weights are split."""
        pipeline, device = self.pipeline, self.pipeline.transformer.device
        with on_device(pipeline.text_encoder, device), on_device(pipeline.text_encoder_2, device):
            tokens, pooled, mask = pipeline.encode_prompt(prompt, prompt_template=self.template, device=device)
        assert mask is not None
        return Prompt(tokens=tokens[:, : max(1, int(mask.sum()))], pooled=pooled)

    @torch.inference_mode()
    def denoise(
        self,
        prompt: Prompt,
        sampling: Sampling,
        on_progress: Callable[[float], None] | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> Tensor:
        """Sample final latents `[1, C, F, H, W]` in float32; the same on every rank.

        The pipeline's own loop runs on this rank's patches: between the noise and the end no latents are gathered.
        `on_progress` is told the finished part of the loop, 0 to 1, after each step. `checkpoints` are written on the
        way, and gone on from if there is one. BadInput if the scheduler cannot go on from one.
        """
        assert self.engine is not None
        adapter, noise = self.engine.adapter, self._noise(sampling)
        grid, steps = adapter.grid(noise), self.engine.recipe.schedule.num_steps(sampling.steps)
        if checkpoints is not None:
            self._check_scheduler(steps)
        self.engine.begin(grid, self.noise_levels(steps))
        patches = checkpoints.resume(self.engine, self.group) if checkpoints is not None else None
        patches = self.group.shard(adapter.unfold(noise)) if patches is None else patches
        on_step_end = _step_callback(self.engine, self.group, on_progress, checkpoints)
        patches = self._loop(patches, prompt, sampling, steps, on_step_end, done=self.engine.step)
        self.engine.end()  # decoding needs the memory, and so does the next prompt
        self.group.mark("end")
        return adapter.fold(self.group.gather(patches), grid).float()

    @torch.inference_mode()
    def denoise_without_engine(self, prompt: Prompt, sampling: Sampling, steps: int) -> Tensor:
        """The same by the pipeline as it stands, with whatever a peer has put on it; one process only."""
        return self._loop(self._noise(sampling), prompt, sampling, steps).float()

    @torch.inference_mode()
    def trajectory(self, prompt: Prompt, sampling: Sampling) -> Tensor:
        """Latents before each step of full sampling and at its end `[T + 1, C, F, H, W]`, in host memory."""
        self.release()
        latents = [self._noise(sampling)]
        self._loop(latents[0], prompt, sampling, sampling.steps, lambda _p, _s, _t, now: _note(latents, now))
        return torch.cat([each.float().cpu() for each in latents])

    @torch.inference_mode()
    def velocity(self, latents: Tensor, level: float, prompt: Prompt, guidance: float) -> Tensor:
        """What the bare model says of latents `[1, C, F, H, W]` at a noise level; the same shape, float32."""
        transformer: Any = self.release().transformer
        scale, options = self.pipeline.scheduler.config.num_train_timesteps, {"device": transformer.device}
        if transformer.config.guidance_embeds:
            embedded = torch.tensor([guidance * 1000.0], dtype=transformer.dtype, **options)
        else:
            embedded = None
        return transformer(
            hidden_states=latents.to(dtype=transformer.dtype, **options),
            timestep=torch.tensor([level * scale], dtype=transformer.dtype, **options),
            encoder_hidden_states=prompt.tokens,
            encoder_attention_mask=torch.ones(prompt.tokens.shape[:2], **options),
            pooled_projections=prompt.pooled,
            guidance=embedded,
            return_dict=False,
        )[0].float()

    def _loop(
        self,
        latents: Tensor,
        prompt: Prompt,
        sampling: Sampling,
        steps: int,
        on_step_end: Any = None,
        *,
        done: int = 0,
    ) -> Tensor:
        """The pipeline's own denoising loop, from noise, or from the latents after `done` steps, to final latents."""
        left: Any = _unshifted(steps)[done:] if done else None
        with _taken_as_they_are(latents, self.pipeline) if done else nullcontext():
            return self.pipeline(
                latents=latents,
                prompt_embeds=prompt.tokens,
                pooled_prompt_embeds=prompt.pooled,
                prompt_attention_mask=torch.ones(prompt.tokens.shape[:2], device=latents.device),
                height=sampling.height,
                width=sampling.width,
                num_frames=sampling.num_frames,
                num_inference_steps=steps - done,
                sigmas=left,
                guidance_scale=sampling.guidance,
                output_type="latent",
                callback_on_step_end=on_step_end,
                return_dict=False,
            )[0]

    def _noise(self, sampling: Sampling) -> Tensor:
        generator = torch.Generator().manual_seed(sampling.seed)
        noise = torch.randn(self._latent_shape(sampling), generator=generator)
        return noise.to(self.pipeline.transformer.device)

    def flops(self, prompt: Prompt, sampling: Sampling) -> tuple[float, float]:
        """FLOPs of the last generation's denoising loop, all ranks together, and of full sampling."""
        assert self.engine is not None
        flops = flops_of_prompt(method=self.engine.settled, **self._cost_of(prompt, sampling))
        return flops, self.full_flops(prompt, sampling)

    def full_flops(self, prompt: Prompt, sampling: Sampling) -> float:
        """FLOPs of full sampling."""
        one = flops_of_prompt(method=RECIPES["full"], **{**self._cost_of(prompt, sampling), "num_steps": 1})
        return sampling.steps * one

    def _cost_of(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        transformer = self.pipeline.transformer
        config = {**transformer.config, "_class_name": family(transformer)}
        grid = adapter_for(transformer).grid(torch.empty(self._latent_shape(sampling), device="meta"))
        return dict(config=config, grid=grid, num_text_tokens=prompt.num_tokens, num_steps=sampling.steps)

    def decode(self, latents: Tensor) -> np.ndarray:
        """Latents `[1, C, F, H, W]` to frames `[F', H', W', 3]` as bytes; for a renderer that works alone."""
        return np.concatenate(list(self.frames(latents)))

    @torch.no_grad()
    def frames(self, latents: Tensor) -> Iterator[np.ndarray]:
        """The frames of latents `[1, C, F, H, W]` in pieces `[f, H', W', 3]` of bytes, in order.

        All ranks decode; rank 0 gets the pieces, and the others have to run the iterator to its end, too.
        """
        vae = self.pipeline.vae
        self.group.mark("decode")
        with on_device(vae, latents.device):
            for piece in decode(vae, latents.to(vae.dtype) / vae.config.scaling_factor, self.group):
                video: Any = self.pipeline.video_processor.postprocess_video(piece.float(), output_type="np")[0]
                yield (video * 255).round().astype(np.uint8)

    def _latent_shape(self, sampling: Sampling) -> tuple[int, int, int, int, int]:
        pipeline, spatial = self.pipeline, self.pipeline.vae_scale_factor_spatial
        frames = (sampling.num_frames - 1) // pipeline.vae_scale_factor_temporal + 1
        return 1, pipeline.transformer.config.in_channels, frames, sampling.height // spatial, sampling.width // spatial

    def noise_levels(self, steps: int, done: int = 0) -> list[float]:
        """The sigma of each step after the `done` first ones, as the pipeline's own loop will set them."""
        scheduler = self.pipeline.scheduler
        scheduler.set_timesteps(sigmas=_unshifted(steps)[done:])
        return scheduler.sigmas[:-1].tolist()

    def _check_scheduler(self, steps: int) -> None:
        """Raises BadInput unless the last steps alone are, to the bit, what they are in a whole loop."""
        kind, config = type(self.pipeline.scheduler), self.pipeline.scheduler.config
        stateless = kind is FlowMatchEulerDiscreteScheduler and not config["stochastic_sampling"]
        levels = self.noise_levels(steps) if stateless else []
        if not stateless or any(self.noise_levels(steps, done) != levels[done:] for done in range(1, steps)):
            raise BadInput(
                "checkpoints need the scheduler FlowMatchEulerDiscreteScheduler, neither stochastic nor with noise "
                f"levels that depend on each other (Karras and the like), not {kind.__name__} as it is set here"
            )


def _unshifted(steps: int) -> np.ndarray:
    """The sigmas that the pipeline hands to its scheduler."""
    return np.linspace(1.0, 0.0, steps + 1)[:-1]


@contextmanager
def _taken_as_they_are(latents: Tensor, pipeline: Any) -> Iterator[None]:
    """The pipeline begins its loop with these latents; it would make float32 of them.

    From the second step on, the loop's latents have the model's number format, and so have the timesteps it gives.
    """
    pipeline.prepare_latents = lambda *_: latents
    try:
        yield
    finally:
        del pipeline.prepare_latents


def _note(seen: list[Tensor], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    seen.append(tensors["latents"].clone())
    return {}


def _step_callback(
    engine: Engine, group: RankGroup, on_progress: Callable[[float], None] | None, checkpoints: Checkpoints | None
) -> Any:
    def callback(_pipeline: Any, _step: int, _timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if checkpoints is not None:
            checkpoints.step_done(engine, group, tensors["latents"])
        if on_progress is not None:
            on_progress(engine.step / len(engine.times))
        return {}

    return callback
