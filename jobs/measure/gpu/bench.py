"""Runs the first denoising steps of one case after another on one transformer.

Legend: B batch (1), N tokens, P values of a patch.
"""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise

import torch

from caching.engine import Engine
from caching.recipe.clock import Clock, Signals
from caching.state_dict import StateDict
from jobs.measure.gpu.cases import Case
from jobs.measure.gpu.model import noise_levels, random_inputs, random_latents, random_transformer
from jobs.measure.gpu.timing import Budget, Step, Timing, steps_to_run, synchronize, warm_up
from jobs.models.full_size import Size as ModelSize
from parallel.single import SingleGroup

COMPILER = "inductor"
LONG_S = 20.0  # a case that has taken so long after its warm-up is content with one dense step


class TypicalClock:
    """Pays for what a schedule looks at, but decides as for a typical video: random weights would mislead it."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def is_dense(self, step: int, signals: Signals) -> bool:
        without_answers = Signals(
            input_change=_without_answer(signals.input_change),
            output_change=_without_answer(signals.output_change),
        )
        return self.clock.is_dense(step, without_answers)

    def may_be_sparse_after(self, step: int) -> bool:
        return self.clock.may_be_sparse_after(step)

    def state_dict(self) -> StateDict:
        return self.clock.state_dict()

    def load_state_dict(self, state: StateDict) -> None:
        self.clock.load_state_dict(state)


def _without_answer(measure: Callable[[], float | None]) -> Callable[[], None]:
    def ask() -> None:
        measure()

    return ask


class ClusteringTimes:
    """The seconds of clustering in the present step, where there is any."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.seconds = device, 0.0

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        """Time the block if it is clustering; other parts are not waited for."""
        if part != "clustering":
            yield
            return
        synchronize(self.device)
        started = time.perf_counter()
        yield
        synchronize(self.device)
        self.seconds += time.perf_counter() - started


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
        plan = case.recipe.dense_plan(self.num_steps)
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
        plan = case.recipe.dense_plan(self.num_steps)
        first = _warm_up(plan, case)
        enough = steps_to_run(plan, first, dense=self.repeats, sparse=self.repeats)
        fewest = len(self.fewest_steps(case))
        steps: list[Step] = []
        times = ClusteringTimes(self.device)
        with self._engine(case, times) as engine:
            for step in self._steps(engine, case, times):
                steps.append(step)
                is_long = sum(step.seconds for step in steps[first:]) > LONG_S or self.budget.left_s < 0
                if len(steps) >= (fewest if is_long else enough):
                    break
            return Timing(steps=tuple(steps), num_warm_up=first, cache_bytes=engine.peak_cache_bytes)

    @contextmanager
    def _engine(self, case: Case, times: ClusteringTimes) -> Iterator[Engine]:
        assert case.recipe is not None
        group = SingleGroup(case.kernel)
        compiler = COMPILER if case.compiled else None
        engine = Engine(self.transformer, case.recipe, group, compiler=compiler, timed=times)
        try:
            yield engine
        finally:
            engine.detach()

    @torch.inference_mode()
    def _steps(self, engine: Engine, case: Case, times: ClusteringTimes) -> Iterator[Step]:
        """The denoising loop, Euler steps on patches `[B, N, P]`; yields after each step."""
        levels = noise_levels(engine.recipe.schedule.num_steps(self.num_steps))
        engine.begin(case.video.grid, levels[:-1], decide=TypicalClock)
        patches = engine.adapter.unfold(random_latents(self.transformer, case.video, self.device))
        dtype = self.inputs["encoder_hidden_states"].dtype
        for level, following in pairwise(levels):
            times.seconds = 0.0
            synchronize(self.device)
            started = time.perf_counter()
            timestep = torch.tensor([1000 * level], device=self.device)
            velocity = engine.forward(patches.to(dtype), return_dict=False, timestep=timestep, **self.inputs)[0]
            patches = patches + (following - level) * velocity
            synchronize(self.device)
            seconds = time.perf_counter() - started
            yield Step(dense=engine.dense[-1], seconds=seconds, clustering_s=times.seconds)
