"""What a user would otherwise pick: the caches of diffusers and cache-dit, and solvers that need fewer steps.

Each runs on the same pipeline as our recipes, with the settings that its documentation begins with. The caches of
diffusers tell the passes of guidance apart, but for PAB and FasterCache: these give one pass the other's attention.
"""

import io
import json
from collections.abc import Callable, Iterator, Sized
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from diffusers import (
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    FasterCacheConfig,
    FirstBlockCacheConfig,
    MagCacheConfig,
    PyramidAttentionBroadcastConfig,
    SeaCacheConfig,
    TaylorSeerCacheConfig,
    UniPCMultistepScheduler,
)
from torch import Tensor

from jobs.models.family import Family
from jobs.models.registry import transformers_in

# What diffusers' TaylorSeer caches by default, and the same in Wan, whose names its own patterns miss.
ATTENTION = [r"(blocks|transformer_blocks|single_transformer_blocks)\.\d+\.attn\d?"]
OF_DIFFUSERS = ("HunyuanVideoPipeline", "HunyuanVideo15Pipeline", "WanPipeline")  # whose loop tells its caches of steps
OF_CACHE_DIT = ("HunyuanVideoPipeline", "WanPipeline")  # whose own call it wraps
LEVELS_OF_EPSILON = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas")
Undo = Callable[[], None]
Attach = Callable[[DiffusionPipeline, int], Undo]
Learn = Callable[[DiffusionPipeline, int, Callable[[], Tensor]], None]
Solver = type[DPMSolverMultistepScheduler] | type[UniPCMultistepScheduler]
CacheConfig = (
    FasterCacheConfig
    | FirstBlockCacheConfig
    | MagCacheConfig
    | PyramidAttentionBroadcastConfig
    | SeaCacheConfig
    | TaylorSeerCacheConfig
)


@dataclass(frozen=True, kw_only=True)
class Peer:
    """A rival: `attach` prepares the pipeline for a number of steps and returns what undoes it.

    `learn`, where there is one, comes first: it is given a full sampling to look at, for that number of steps.
    """

    name: str
    attach: Attach
    steps: int | None = None  # samples with so many steps instead
    needs: str | None = None  # a package that is not one of ours
    learn: Learn | None = None
    pipelines: tuple[str, ...] = ()  # the only ones that it knows; none for all
    takes_turns: bool = True  # works on a second transformer that takes over half way, too

    @property
    def available(self) -> bool:
        return self.needs is None or find_spec(self.needs) is not None

    def fits(self, family: Family, num_transformers: int = 1) -> bool:
        """Whether it works on pipelines of this family, with so many transformers."""
        return (not self.pipelines or family.pipeline in self.pipelines) and (self.takes_turns or num_transformers == 1)

    @contextmanager
    def attached(self, pipeline: DiffusionPipeline, steps: int) -> Iterator[int]:
        """The pipeline with this rival on it; gives the number of steps to sample."""
        steps = self.steps or steps
        undo = self.attach(pipeline, steps)
        try:
            yield steps
        finally:
            undo()


class DpmSolver(DPMSolverMultistepScheduler):
    """DPM-Solver++ where the pipeline insists on passing noise levels; it makes its own, as it always does."""

    def set_timesteps(
        self,
        num_inference_steps: Any = None,
        device: Any = None,
        mu: float | None = None,
        timesteps: list[int] | None = None,
        *,
        sigmas: Sized | None = None,
    ) -> None:
        super().set_timesteps(num_inference_steps if sigmas is None else len(sigmas), device)


def solver(scheduler_class: Solver) -> Attach:
    """Replace the scheduler by one that integrates the same flow, or by the same levels what epsilon means."""

    def attach(pipeline: DiffusionPipeline, steps: int) -> Undo:
        original = pipeline.scheduler
        given: dict[str, Any]
        if original.config.get("prediction_type") == "epsilon":
            given = {name: original.config[name] for name in LEVELS_OF_EPSILON}
        else:
            shift = original.config.get("shift") or original.config.flow_shift
            given = dict(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
        pipeline.scheduler = scheduler_class(**given, solver_order=2)
        return lambda: setattr(pipeline, "scheduler", original)

    return attach


def diffusers_cache(make_config: Callable[[DiffusionPipeline], CacheConfig]) -> Attach:
    """One of the caches that diffusers brings."""

    def attach(pipeline: DiffusionPipeline, steps: int) -> Undo:
        transformers = transformers_in(pipeline)
        for transformer in transformers:
            transformer.enable_cache(make_config(pipeline))

        def undo() -> None:
            for transformer in transformers:
                transformer.disable_cache()

        return undo

    return attach


class MagCache:
    """diffusers' MagCache, which must have seen a full sampling by the model: it prints what it learnt there."""

    def __init__(self) -> None:
        self.ratios: dict[int, list[float]] = {}

    def learn(self, pipeline: DiffusionPipeline, steps: int, sample: Callable[[], Tensor]) -> None:
        """Keep the ratios of the residuals' magnitudes in a sampling of so many steps."""
        if steps in self.ratios:
            return
        undo = diffusers_cache(lambda _: MagCacheConfig(calibrate=True, num_inference_steps=steps))(pipeline, steps)
        with redirect_stdout(io.StringIO()) as printed:
            sample()
        undo()
        line = next(line for line in printed.getvalue().splitlines() if line.startswith("[1"))
        self.ratios[steps] = json.loads(line)

    def attach(self, pipeline: DiffusionPipeline, steps: int) -> Undo:
        config = MagCacheConfig(mag_ratios=self.ratios[steps], num_inference_steps=steps)
        return diffusers_cache(lambda _: config)(pipeline, steps)

    def peer(self) -> Peer:
        """As a rival."""
        return Peer(name="diffusers-magcache", attach=self.attach, learn=self.learn, pipelines=OF_DIFFUSERS)


def cache_dit(*, taylor: bool) -> Attach:
    """cache-dit's DBCache, alone or with its TaylorSeer."""

    def attach(pipeline: DiffusionPipeline, steps: int) -> Undo:
        import cache_dit as library

        restorers = [_restorer(transformer) for transformer in transformers_in(pipeline)]
        blocks = sum(len(part) for part in pipeline.transformer.children() if isinstance(part, torch.nn.ModuleList))
        library.enable_cache(
            pipeline,
            cache_config=library.DBCacheConfig(
                Fn_compute_blocks=min(8, max(1, blocks // 8)),
                Bn_compute_blocks=0,
                max_warmup_steps=4,
                residual_diff_threshold=0.08,
                num_inference_steps=steps,
            ),
            calibrator_config=library.TaylorSeerCalibratorConfig(taylorseer_order=1) if taylor else None,
        )

        def undo() -> None:
            library.disable_cache(pipeline)
            for restore in restorers:
                restore()

        return undo

    return attach


def _restorer(transformer: torch.nn.Module) -> Callable[[], None]:
    """What gives a transformer back its attributes, and its children in order, by which diffusers' caches go."""
    own, children = set(vars(transformer)), [name for name, _ in transformer.named_children()]

    def restore() -> None:
        for name in set(vars(transformer)) - own:
            delattr(transformer, name)
        for name in children:
            child = getattr(transformer, name)
            delattr(transformer, name)
            setattr(transformer, name, child)

    return restore


def _broadcast(pipeline: DiffusionPipeline) -> PyramidAttentionBroadcastConfig:
    return PyramidAttentionBroadcastConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(100, 950),
        current_timestep_callback=lambda: pipeline.current_timestep,  # type: ignore[return-value]
    )


def _faster(pipeline: DiffusionPipeline) -> FasterCacheConfig:
    return FasterCacheConfig(
        spatial_attention_block_skip_range=2,
        spatial_attention_timestep_skip_range=(-1, 901),
        current_timestep_callback=lambda: pipeline.current_timestep,  # type: ignore[return-value]
        attention_weight_callback=lambda _: 0.3,
        tensor_format="BCFHW",
        is_guidance_distilled=True,
    )


def _taylorseer(pipeline: DiffusionPipeline) -> TaylorSeerCacheConfig:
    return TaylorSeerCacheConfig(
        cache_interval=5,
        disable_cache_before_step=3,
        max_order=1,
        taylor_factors_dtype=torch.float32,
        cache_identifiers=ATTENTION,
    )


PEERS = [
    *(Peer(name=f"unipc-{steps}", attach=solver(UniPCMultistepScheduler), steps=steps) for steps in (9, 13)),
    *(Peer(name=f"dpm-solver++-{steps}", attach=solver(DpmSolver), steps=steps) for steps in (9, 13)),
    Peer(
        name="diffusers-first-block",
        attach=diffusers_cache(lambda _: FirstBlockCacheConfig(threshold=0.05)),
        pipelines=OF_DIFFUSERS,
    ),
    Peer(name="diffusers-taylorseer", attach=diffusers_cache(_taylorseer), pipelines=OF_DIFFUSERS),
    MagCache().peer(),
    Peer(name="diffusers-seacache", attach=diffusers_cache(lambda _: SeaCacheConfig()), pipelines=("WanPipeline",)),
    Peer(name="diffusers-pab", attach=diffusers_cache(_broadcast), pipelines=OF_DIFFUSERS),
    Peer(name="diffusers-fastercache", attach=diffusers_cache(_faster), takes_turns=False, pipelines=OF_DIFFUSERS),
    Peer(name="cache-dit-dbcache", attach=cache_dit(taylor=False), needs="cache_dit", pipelines=OF_CACHE_DIT),
    Peer(name="cache-dit-dbcache-taylorseer", attach=cache_dit(taylor=True), needs="cache_dit", pipelines=OF_CACHE_DIT),
]
