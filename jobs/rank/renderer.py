"""A loaded pipeline joined with a recipe and a sequence group: encode, denoise, decode.

Legend: C latent channels, F H W latent frames, height and width, f H' W' frames, height and width of a video.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from caching.engine import Engine
from caching.flops import flops_of_prompt
from caching.models import adapter_for, family
from caching.recipe.recipe import RECIPES, Recipe
from caching.site import Timed, untimed
from jobs.errors import BadInput
from jobs.models.family import Json, Prompt, Sampling, StepCallback
from jobs.models.registry import family_of
from jobs.rank.checkpoint import Checkpoints
from jobs.rank.finite import FiniteSteps, NotFinite, check_finite, not_finite
from jobs.rank.offload import on_device
from jobs.rank.pixels import on_host, to_bytes
from parallel.rank_group import RankGroup
from parallel.single import SingleGroup


class Renderer:
    """Renders with one recipe at a time; every rank of a gang calls the same methods in the same order."""

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        group: RankGroup | None = None,
        template: Json | None = None,
        *,
        compiled: bool = False,
    ) -> None:
        self.pipeline, self.family, self.compiled = pipeline, family_of(pipeline), compiled
        self.group: RankGroup = group or SingleGroup()
        self.template = template
        self.engine: Engine | None = None

    def use(self, method: Recipe, *, group: RankGroup | None = None, timed: Timed = untimed) -> Engine:
        """Sample with this recipe from now on; `timed` is told of the parts of each step.

        `group` may be another of the same ranks, which attends by another kernel.
        """
        if self.engine is not None:
            self.engine.detach()
        compiler = "inductor" if self.compiled else None
        self.engine = Engine(self.pipeline.transformer, method, group or self.group, compiler=compiler, timed=timed)
        return self.engine

    def release(self) -> DiffusionPipeline:
        """The pipeline as it was loaded, for others to work on; `use` takes it back."""
        if self.engine is not None:
            self.engine.detach()
            self.engine = None
        return self.pipeline

    @torch.no_grad()
    def encode(self, prompt: str) -> Prompt:
        """Run the text encoders; only where they are loaded, and on all ranks where their weights are split."""
        with ExitStack() as stack:
            for name in self.family.text_encoders:
                stack.enter_context(on_device(getattr(self.pipeline, name), self.pipeline.transformer.device))
            return self.family.encode(self.pipeline, prompt, self.template)

    def cut_tokens(self, prompt: str) -> int | None:
        """The tokens at a prompt's end that `encode` leaves out; None where that cannot be known."""
        tokenizer = getattr(self.pipeline, self.family.tokenizers[0])

        def count(text: str) -> int:
            return len(tokenizer(text, verbose=False).input_ids)

        room = self.family.prompt_room(count, self.template)
        return None if room is None else max(0, count(prompt) - count("") - room)

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
        way, and gone on from if there is one. BadInput if the scheduler cannot go on from one, or if the latents are
        not finite.
        """
        engine, noise = self._engine_in_use(), self._noise(sampling)
        grid, steps = engine.adapter.grid(noise), engine.recipe.schedule.num_steps(sampling.steps)
        if checkpoints is not None:
            self._check_scheduler(steps)
        engine.begin(grid, self.noise_levels(steps))
        patches = checkpoints.resume(engine, self.group) if checkpoints is not None else None
        patches = self.group.shard(engine.adapter.unfold(noise)) if patches is None else patches
        finite, done = FiniteSteps(), engine.step
        on_step_end = _step_callback(engine, self.group, finite, on_progress, checkpoints)
        patches = self.family.sample(
            self.pipeline, patches, prompt, sampling, steps=steps, done=done, on_step_end=on_step_end
        )
        engine.end()  # decoding needs the memory, and so does the next prompt
        self.group.mark("end")
        latents = engine.adapter.fold(self.group.gather(patches), grid)
        if not torch.isfinite(latents).all():  # the same on every rank
            step = done + finite.first(self.group) + 1
            raise self._overflow(prompt, f"from step {step} of {steps} on", checkpoints)
        return latents

    @torch.inference_mode()
    def denoise_without_engine(self, prompt: Prompt, sampling: Sampling, steps: int) -> Tensor:
        """The same by the pipeline as it stands, with whatever a peer has put on it; one process only."""
        with _answers_in_float32(self.pipeline.transformer):
            latents = self.family.sample(self.pipeline, self._noise(sampling), prompt, sampling, steps=steps)
        check_finite(latents, "the latents are", self.pipeline.transformer.dtype)
        return latents

    @torch.inference_mode()
    def trajectory(self, prompt: Prompt, sampling: Sampling) -> Tensor:
        """Latents before each step of full sampling and at its end `[T + 1, C, F, H, W]`, in host memory."""
        pipeline, latents = self.release(), [self._noise(sampling)]
        with _answers_in_float32(pipeline.transformer):
            self.family.sample(
                pipeline,
                latents[0],
                prompt,
                sampling,
                steps=sampling.steps,
                on_step_end=lambda _pipeline, _step, _timestep, now: _note(latents, now),
            )
        check_finite(latents[-1], "the latents are", pipeline.transformer.dtype)
        return torch.cat([each.cpu() for each in latents])

    @torch.inference_mode()
    def velocity(self, latents: Tensor, level: float, prompt: Prompt, guidance: float) -> Tensor:
        """What the bare model says of latents `[1, C, F, H, W]` at a noise level; the same shape, float32."""
        return self.family.velocity(self.release(), latents, level, prompt, guidance).float()

    def _overflow(self, prompt: Prompt, when: str, checkpoints: Checkpoints | None) -> NotFinite:
        """What to raise on every rank for latents that are not finite; a next try would begin anew."""
        if checkpoints is not None and self.group.rank == 0:
            checkpoints.discard()
        encoded = all(torch.isfinite(each).all() for each in (prompt.tokens, prompt.pooled))
        what = f"the latents are, {when}," if encoded else "the encoded prompt is"
        resumed = checkpoints is not None and checkpoints.resumed_step > 0
        return not_finite(what, self.pipeline.transformer.dtype, after_checkpoint=resumed)

    def _engine_in_use(self) -> Engine:
        if self.engine is None:
            raise RuntimeError("call use() with the recipe to sample with first")
        return self.engine

    def _noise(self, sampling: Sampling) -> Tensor:
        generator = torch.Generator().manual_seed(sampling.seed)
        noise = torch.randn(self.family.latent_shape(self.pipeline, sampling), generator=generator)
        return noise.to(self.pipeline.transformer.device)

    def flops(self, prompt: Prompt, sampling: Sampling) -> tuple[float, float]:
        """FLOPs of the last generation's denoising loop, all ranks together, and of full sampling."""
        flops = self._flops(self._engine_in_use().settled, prompt, sampling, sampling.steps)
        return flops, self.full_flops(prompt, sampling)

    def full_flops(self, prompt: Prompt, sampling: Sampling) -> float:
        """FLOPs of full sampling."""
        return sampling.steps * self._flops(RECIPES["full"], prompt, sampling, 1)

    def _flops(self, method: Recipe, prompt: Prompt, sampling: Sampling, num_steps: int) -> float:
        transformer = self.pipeline.transformer
        config = {**transformer.config, "_class_name": family(transformer)}
        shape = self.family.latent_shape(self.pipeline, sampling)
        grid = adapter_for(transformer).grid(torch.empty(shape, device="meta"))
        return flops_of_prompt(config, method, grid=grid, num_text_tokens=prompt.num_tokens, num_steps=num_steps)

    def decode(self, latents: Tensor) -> np.ndarray:
        """Latents `[1, C, F, H, W]` to frames `[F', H', W', 3]` as bytes; for a renderer that works alone."""
        return np.concatenate(list(self.frames(latents)))

    @torch.no_grad()
    def frames(self, latents: Tensor) -> Iterator[np.ndarray]:
        """The frames of latents `[1, C, F, H, W]` in pieces `[f, H', W', 3]` of bytes, in order.

        All ranks decode; rank 0 gets the pieces, and the others have to run the iterator to its end, too.
        NotFinite at the end if some pixel was not: the other ranks have done their part by then.
        """
        self.group.mark("decode")
        finite = torch.ones((), dtype=torch.bool, device=latents.device)
        with on_device(self.pipeline.vae, latents.device):
            for piece in self.family.decode(self.pipeline, latents, self.group):
                finite = finite & torch.isfinite(piece).all()
                yield on_host(to_bytes(piece))
        if not finite:
            raise not_finite("the decoded frames are", self.pipeline.vae.dtype, self.pipeline.transformer.dtype)

    def noise_levels(self, steps: int, done: int = 0) -> list[float]:
        """The sigma of each step after the `done` first ones, as the pipeline's own loop will set them."""
        scheduler = self.pipeline.scheduler
        scheduler.set_timesteps(sigmas=self.family.sigmas(steps)[done:])
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


@contextmanager
def _answers_in_float32(transformer: nn.Module) -> Iterator[None]:
    """A transformer without an engine answers in float32 as one with it does, and so latents and timesteps stay so."""
    handle = transformer.register_forward_hook(lambda _module, _inputs, output: (output[0].float(), *output[1:]))
    try:
        yield
    finally:
        handle.remove()


def _note(seen: list[Tensor], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    seen.append(tensors["latents"].clone())
    return {}


def _step_callback(
    engine: Engine,
    group: RankGroup,
    finite: FiniteSteps,
    on_progress: Callable[[float], None] | None,
    checkpoints: Checkpoints | None,
) -> StepCallback:
    def callback(_pipeline: object, _step: int, _timestep: object, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        finite.note(tensors["latents"])
        if checkpoints is not None:
            checkpoints.step_done(engine, group, tensors["latents"])
        if on_progress is not None:
            on_progress(engine.step / len(engine.times))
        return {}

    return callback
