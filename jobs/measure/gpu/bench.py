"""Runs the first denoising steps of one case after another on one transformer.

Legend: B batch (1), N tokens, P values of a patch.
"""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch

from caching.engine import Engine
from caching.group import LocalGroup
from caching.recipe.schedule import Clock, Signals
from jobs.measure.full_size import Size as ModelSize
from jobs.measure.gpu.attention import KernelGroup
from jobs.measure.gpu.cases import BLIND, Case, dense_plan
from jobs.measure.gpu.model import noise_levels, random_inputs, random_latents, random_transformer
from jobs.measure.gpu.timing import Budget, Step, Timing, steps_to_run, synchronize, warm_up

COMPILER = "inductor"
LONG_S = 20.0  # a case that has taken so long after its warm-up is content with one dense step


class TypicalClock:
    """Pays for what a schedule looks at, but decides as for a typical video: random weights would mislead it."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def is_dense(self, step: int, signals: Signals) -> bool:
        asked = {name: _without_answer(getattr(signals, name)) for name in vars(BLIND)}
        return self.clock.is_dense(step, Signals(**asked))

    def may_be_sparse_after(self, step: int) -> bool:
        return self.clock.may_be_sparse_after(step)


def _without_answer(measure: Callable[[], float | None]) -> Callable[[], None]:
    def ask() -> None:
        measure()

    return ask


def _warm_up(plan: Sequence[bool], case: Case) -> int:
    """The steps that are not counted; in compiled blocks the sparse steps with proxies compile once more."""
    return warm_up(plan, rounds=2 if case.compiled else 1)


class Bench:
    """A transformer with random weights, on which cases take turns."""

    def __init__(self, model: ModelSize, *, num_steps: int, repeats: int, budget: Budget) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.num_steps, self.repeats, self.budget = num_steps, repeats, budget
        torch.manual_seed(0)
        self.transformer = random_transformer(model.config, self.device)
        self.inputs = random_inputs(self.transformer, model.num_text_tokens, self.device)

    def measure(self, case: Case) -> Timing:
        """Run as many steps as it takes. Raises what the case raises, torch.OutOfMemoryError among others."""
        if self.device.type == "cuda":
            gc.collect()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        timing = self._time_peer(case) if case.recipe is None else self._time_recipe(case)
        on_gpu = self.device.type == "cuda"
        return replace(timing, peak_bytes=torch.cuda.max_memory_allocated() if on_gpu else None)

    def fewest_steps(self, case: Case) -> list[bool]:
        """The steps, True for dense ones, that it takes at least to time a case; a guess for peers."""
        if case.recipe is None:
            return self._peer_plan(case)
        plan = dense_plan(case.recipe, self.num_steps)
        return plan[: steps_to_run(plan, _warm_up(plan, case), dense=1, sparse=1)]

    def _peer_plan(self, case: Case) -> list[bool]:
        from jobs.measure.gpu.rivals import PLAIN

        if case.name == PLAIN:  # every step is dense
            return [True] * min(self.num_steps, 1 + self.repeats)
        return [step % 3 == 0 for step in range(self.num_steps)]

    def _time_peer(self, case: Case) -> Timing:
        from jobs.measure.gpu.rivals import RIVALS, time_rival

        latents = random_latents(self.transformer, case.video, self.device)
        steps = time_rival(
            RIVALS[case.name],
            self.transformer,
            latents,
            self.inputs,
            case.video,
            num_steps=self.num_steps,
            stop_after=len(self._peer_plan(case)),
            end=self.budget.end,
        )
        return Timing(steps=steps, num_warm_up=warm_up([step.dense for step in steps]))

    def _time_recipe(self, case: Case) -> Timing:
        assert case.recipe is not None
        plan = dense_plan(case.recipe, self.num_steps)
        first = _warm_up(plan, case)
        enough = steps_to_run(plan, first, dense=self.repeats, sparse=self.repeats)
        fewest = len(self.fewest_steps(case))
        steps: list[Step] = []
        with self._engine(case) as engine:
            for step in self._steps(engine, case):
                steps.append(step)
                is_long = sum(step.seconds for step in steps[first:]) > LONG_S or self.budget.left_s < 0
                if len(steps) >= (fewest if is_long else enough):
                    break
            return Timing(steps=tuple(steps), num_warm_up=first, cache_bytes=engine.peak_cache_bytes)

    @contextmanager
    def _engine(self, case: Case) -> Iterator[Engine]:
        assert case.recipe is not None
        group = LocalGroup() if case.attention == "default" else KernelGroup(case.attention)
        compiler = COMPILER if case.compiled else None
        engine = Engine(self.transformer, case.recipe, group, compiler=compiler)
        try:
            yield engine
        finally:
            engine.detach()

    @torch.inference_mode()
    def _steps(self, engine: Engine, case: Case) -> Iterator[Step]:
        """The denoising loop, Euler steps on patches `[B, N, P]`; yields after each step."""
        levels = noise_levels(engine.recipe.schedule.num_steps(self.num_steps))
        engine.begin(case.video.grid, levels[:-1])
        engine.clock = TypicalClock(engine.clock)
        clustering = self._watch_clustering(engine)
        patches = engine.adapter.unfold(random_latents(self.transformer, case.video, self.device))
        dtype = self.inputs["encoder_hidden_states"].dtype
        for level, following in pairwise(levels):
            clustering.clear()
            synchronize(self.device)
            started = time.perf_counter()
            timestep = torch.tensor([1000 * level], device=self.device)
            velocity = engine.forward(patches.to(dtype), return_dict=False, timestep=timestep, **self.inputs)[0]
            patches = patches + (following - level) * velocity.float()
            synchronize(self.device)
            seconds = time.perf_counter() - started
            yield Step(dense=engine.dense[-1], seconds=seconds, clustering_s=sum(clustering))

    def _watch_clustering(self, engine: Engine) -> list[float]:
        """The seconds of each clustering from now on, where there is any."""
        seconds: list[float] = []
        if engine.proxies is None:
            return seconds
        choose = engine.proxies.choose

        def timed(*args: Any) -> None:
            synchronize(self.device)
            started = time.perf_counter()
            choose(*args)
            synchronize(self.device)
            seconds.append(time.perf_counter() - started)

        engine.proxies.choose = timed  # type: ignore[method-assign]
        return seconds
