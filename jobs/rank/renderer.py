"""A loaded pipeline joined with a recipe and a sequence group: encode, denoise, decode.

Legend: C latent channels, F H W latent frames, height and width, f H' W' frames, height and width of a video; an image
is one frame, of latents [1, C, H, W].
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from caching.engine import Engine, column
from caching.flops import BY_TOKEN, flops_of_prompt
from caching.models import adapter_for, family
from caching.recipe.recipe import RECIPES, Recipe
from caching.site import Timed, untimed
from jobs.models.family import Json, Prompt, Sampling, StepCallback
from jobs.models.registry import family_of, transformers_in
from jobs.rank.checkpoint import Checkpoints
from jobs.rank.finite import FiniteSteps, NotFinite, check_finite, not_finite
from jobs.rank.offload import on_device, taking_turns
from jobs.rank.pixels import on_host, to_bytes
from jobs.rank.solver import Solver, begun, check_solver, state_of
from jobs.rank.steps import Steps
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
        self.device: torch.device = pipeline._execution_device
        self.transformers = transformers_in(pipeline)
        self.dtype = self.transformers[0].dtype
        self.engine: Engine | None = None

    def use(self, method: Recipe, *, group: RankGroup | None = None, timed: Timed = untimed) -> Engine:
        """Sample with this recipe from now on; `timed` is told of the parts of each step.

        `group` may be another of the same ranks, which attends by another kernel.
        """
        self.release()  # What cannot be made leaves none.
        compiler = "inductor" if self.compiled else None
        self.engine = Engine(
            self.transformers, method, group or self.group, compiler=compiler, timed=timed, device=self.device
        )
        return self.engine

    def release(self) -> DiffusionPipeline:
        """The pipeline as it was loaded, for others to work on; `use` takes it back."""
        if self.engine is not None:
            self.engine.detach()
            self.engine = None
        return self.pipeline

    @torch.no_grad()
    def encode(self, prompt: str, negative: str | None = None) -> Prompt:
        """Run the text encoders; only where they are loaded, and on all ranks where their weights are split.

        `negative` is what the family takes for a second pass (`Family.negative_prompt`).
        """
        with ExitStack() as stack:
            for name in self.family.text_encoders:
                stack.enter_context(on_device(getattr(self.pipeline, name), self.device))
            cond = self.family.encode(self.pipeline, prompt, self.template)
            uncond = None if negative is None else self.family.encode(self.pipeline, negative, self.template)
        return Prompt(cond=cond, uncond=uncond)

    def cut_tokens(self, prompt: str) -> int | None:
        """The tokens at a prompt's end that `encode` leaves out; None where that cannot be known."""
        if not self.family.tokenizers:
            return None
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
        *,
        on_tokens: Callable[[Tensor], None] | None = None,
    ) -> Tensor:
        """Sample final latents `[1, C, F, H, W]` in float32; the same on every rank.

        The pipeline's own loop runs on this rank's tokens: between the noise and the end no latents are gathered.
        `on_progress` is told the finished part of the loop, 0 to 1, after each step, and `on_tokens` this rank's
        latents. `checkpoints` are written on the way, and gone on from if there is one. BadInput if what the scheduler
        keeps is not known, or if the latents are not finite.
        """
        engine, noise = self._engine_in_use(), self.noise(sampling)
        grid, steps = engine.adapter.grid(noise), engine.recipe.schedule.num_steps(sampling.steps)
        if checkpoints is not None:
            check_solver(self.pipeline.scheduler)
        engine.begin(grid, self.noise_levels(sampling, steps), batched=self._batched(prompt))
        resumed = checkpoints.resume(engine, self.group) if checkpoints is not None else None
        own, solver = resumed or (column(engine.adapter, self.group.shard(engine.adapter.unfold(noise))), {})
        finite, done = FiniteSteps(), engine.step
        on_step_end = _step_callback(engine, self.group, finite, on_progress, checkpoints, on_tokens)
        with begun(self.pipeline.scheduler, done, solver), self._in_turns():
            own = self.family.sample(self.pipeline, own, prompt, sampling, steps=steps, on_step_end=on_step_end)
        engine.end()  # decoding needs the memory, and so does the next prompt
        self.group.mark("end")
        latents = self._whole(engine, own)
        if not torch.isfinite(latents).all():  # the same on every rank
            step = done + finite.first(self.group) + 1
            raise self._overflow(prompt, f"from step {step} of {steps} on", checkpoints)
        return latents

    @torch.inference_mode()
    def denoise_without_engine(self, prompt: Prompt, sampling: Sampling, steps: int) -> Tensor:
        """The same by the pipeline as it stands, with whatever a peer has put on it; one process only."""
        with _answers_in_float32(self.transformers), self._in_turns():
            latents = self.family.sample(self.pipeline, self.noise(sampling), prompt, sampling, steps=steps)
        check_finite(latents, "the latents are", self.dtype)
        return latents

    def trajectory(
        self, prompt: Prompt, sampling: Sampling, on_progress: Callable[[float], None] | None = None
    ) -> Tensor:
        """Latents before each step of full sampling and at its end `[T + 1, C, F, H, W]`, in host memory."""
        engine, latents = self._use_full(), [self.noise(sampling).cpu()]
        self.denoise(
            prompt, sampling, on_progress, on_tokens=lambda own: latents.append(self._whole(engine, own).cpu())
        )
        return torch.cat(latents)

    @torch.inference_mode()
    def velocity(self, latents: Tensor, level: float, prompt: Prompt, sampling: Sampling) -> Tensor:
        """What the model says of latents `[1, C, F, H, W]` at a noise level; the same shape, float32."""
        engine = self._use_full()
        engine.begin(engine.adapter.grid(latents), [level], batched=self._batched(prompt))
        with self._in_turns():
            velocity = self.family.velocity(self.pipeline, latents, level, prompt, sampling)
        engine.end()
        return velocity

    def _use_full(self) -> Engine:
        return self.engine if self.engine and self.engine.recipe == RECIPES["full"] else self.use(RECIPES["full"])

    def _batched(self, prompt: Prompt) -> int:
        """The passes that one call of the model holds."""
        return len(prompt.texts) if self.family.doubles_batch else 1

    def _whole(self, engine: Engine, own: Tensor) -> Tensor:
        """All tokens of which each rank has its `own`, as latents `[1, C, F, H, W]`."""
        return engine.adapter.fold(self.group.gather(engine.adapter.unfold(own)), engine.grid)

    def _in_turns(self) -> AbstractContextManager[None]:
        """Several transformers may wait in host memory, each until it is called."""
        return taking_turns(self.transformers, self.device) if len(self.transformers) > 1 else nullcontext()

    def _overflow(self, prompt: Prompt, when: str, checkpoints: Checkpoints | None) -> NotFinite:
        """What to raise on every rank for latents that are not finite; a next try would begin anew."""
        if checkpoints is not None and self.group.rank == 0:
            checkpoints.discard()
        encoded = all(torch.isfinite(each).all() for text in prompt.texts for each in text.tensors)
        what = f"the latents are, {when}," if encoded else "the encoded prompt is"
        resumed = checkpoints is not None and checkpoints.resumed_step > 0
        return not_finite(what, self.dtype, after_checkpoint=resumed)

    def _engine_in_use(self) -> Engine:
        if self.engine is None:
            raise RuntimeError("call use() with the recipe to sample with first")
        return self.engine

    def noise(self, sampling: Sampling) -> Tensor:
        """What sampling begins with, by its seed `[1, C, F, H, W]`."""
        generator = torch.Generator().manual_seed(sampling.seed)
        noise = torch.randn(self.family.latent_shape(self.pipeline, sampling), generator=generator)
        return noise.to(self.device)

    def flops(self, prompt: Prompt, sampling: Sampling) -> tuple[float, float]:
        """FLOPs of the last generation's denoising loop, all ranks together, and of full sampling."""
        engine, dense_steps = self._engine_in_use(), None
        spans = self.family.stages(self.pipeline, sampling, len(engine.times))
        if len(spans) > 1:  # the step of a change is dense, whatever the recipe says
            dense_steps = tuple(step for step, is_dense in enumerate(engine.dense) if is_dense)
        stages = [Steps(method=engine.settled, num=sampling.steps, dense=dense_steps, span=span) for span in spans]
        return self._flops(prompt, sampling, stages), self.full_flops(prompt, sampling)

    def full_flops(self, prompt: Prompt, sampling: Sampling) -> float:
        """FLOPs of full sampling."""
        spans, one = self.family.stages(self.pipeline, sampling, sampling.steps), Steps(method=RECIPES["full"], num=1)
        return self._flops(prompt, sampling, [replace(one, times=len(span)) for span in spans])

    def _flops(self, prompt: Prompt, sampling: Sampling, stages: Sequence[Steps]) -> float:
        """Of the steps of each transformer, all passes together."""
        shape, total = self.family.latent_shape(self.pipeline, sampling), 0.0
        for transformer, stage in zip(self.transformers, stages, strict=True):
            grid = adapter_for(transformer).grid(torch.empty(shape, device="meta"))
            by_token = self.family.levels_by_token(dict(self.pipeline.config))
            config = {**transformer.config, "_class_name": family(transformer), BY_TOKEN: by_token}
            for number, text in enumerate(prompt.texts):
                steps = stage.of_later_passes if number else stage
                size = {"grid": grid, "num_steps": steps.num, "dense_steps": steps.dense, "span": steps.span}
                once = flops_of_prompt(config, steps.method, num_text_tokens=text.num_tokens, **size)
                total += steps.times * once
        return total

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
            raise not_finite("the decoded frames are", self.pipeline.vae.dtype, self.dtype)

    def solver(self, sampling: Sampling) -> Solver:
        """What goes from noise level to noise level as the pipeline's own loop does."""
        self.family.set_timesteps(self.pipeline, sampling, sampling.steps)
        return Solver(self.pipeline.scheduler)

    def noise_levels(self, sampling: Sampling, steps: int) -> list[float]:
        """That of each of so many steps, as the pipeline's own loop will set them."""
        self.family.set_timesteps(self.pipeline, sampling, steps)
        return self.family.levels(self.pipeline)


@contextmanager
def _answers_in_float32(transformers: Sequence[nn.Module]) -> Iterator[None]:
    """Without an engine they answer in float32 as with one, and so latents and timesteps stay so."""
    handles = [
        each.register_forward_hook(lambda _module, _inputs, output: (output[0].float(), *output[1:]))
        for each in transformers
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _step_callback(
    engine: Engine,
    group: RankGroup,
    finite: FiniteSteps,
    on_progress: Callable[[float], None] | None,
    checkpoints: Checkpoints | None,
    on_tokens: Callable[[Tensor], None] | None,
) -> StepCallback:
    def callback(pipeline: Any, _step: int, _timestep: object, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        finite.note(tensors["latents"])
        if checkpoints is not None:
            checkpoints.step_done(engine, group, tensors["latents"], state_of(pipeline.scheduler))
        if on_progress is not None:
            on_progress(engine.step / len(engine.times))
        if on_tokens is not None:
            on_tokens(tensors["latents"])
        return {}

    return callback
