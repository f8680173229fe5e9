"""Who takes part in a benchmark: our recipes, and peers, behind one face."""

import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from caching.recipe.recipe import Recipe
from jobs.measure.fidelity import peak_memory
from jobs.measure.peers import Peer
from jobs.rank.renderer import Prompt, Renderer, Sampling
from parallel.kernels import Choice
from parallel.single import SingleGroup

NUM_COUNTED = 2  # videos of which a peer's FLOPs are counted
# PyTorch counts every attention kernel but the one that runs on a CPU.
CPU_ATTENTION = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: lambda query, key, value, *_, **__: sdpa_flop_count(
        query, key, value
    )
}


@dataclass(frozen=True, kw_only=True)
class Run:
    """One denoising loop, and what it cost; None where it cannot be known of a peer."""

    latents: Tensor
    seconds: float
    peak_bytes: int
    flops: float
    flops_full: float
    dense_steps: int | None = None
    sparse_steps: int | None = None
    cache_bytes: int | None = None


class Contestant(ABC):
    """Something that denoises."""

    name: str
    fp8: bool = False
    """Whether it asks for a renderer whose weights are in 8 bits."""

    @abstractmethod
    def run(self, renderer: Renderer, prompt: Prompt, sampling: Sampling) -> Run:
        """Denoise one video."""

    @abstractmethod
    def warm_up(self, renderer: Renderer, prompt: Prompt, sampling: Sampling) -> None:
        """Pay first-time costs on a short sampling."""

    @abstractmethod
    def describe(self) -> dict[str, object]:
        """Its settings."""


class RecipeContestant(Contestant):
    """One of our methods, by the attention kernel of a name if it has any, or with weights in 8 bits."""

    def __init__(
        self, recipe: Recipe, warm_up_recipe: Recipe, *, attention: str | None = None, fp8: bool = False
    ) -> None:
        kernel, weights = f", {attention} attention" if attention else "", ", fp8 weights" if fp8 else ""
        self.name = f"{recipe.name}{kernel}{weights}"
        self.recipe, self.warm_up_recipe, self.fp8 = recipe, warm_up_recipe, fp8
        self.group = SingleGroup(Choice.read(attention)) if attention else None
        self.counted: dict[tuple[int, tuple[int, ...], Sampling], tuple[float, float]] = {}

    def run(self, renderer: Renderer, prompt: Prompt, sampling: Sampling) -> Run:
        engine = renderer.use(self.recipe, group=self.group)
        latents, seconds, peak = timed(lambda: renderer.denoise(prompt, sampling))
        # Where a recipe chooses its dense steps as it goes, it is their number that counts.
        texts = tuple(text.num_tokens for text in prompt.texts)
        size = (engine.dense_steps, texts, replace(sampling, seed=0))
        if size not in self.counted:
            self.counted[size] = renderer.flops(prompt, sampling)
        flops, flops_full = self.counted[size]
        return Run(
            latents=latents,
            seconds=seconds,
            peak_bytes=peak,
            flops=flops,
            flops_full=flops_full,
            dense_steps=engine.dense_steps,
            sparse_steps=engine.sparse_steps,
            cache_bytes=engine.peak_cache_bytes,
        )

    def warm_up(self, renderer: Renderer, prompt: Prompt, sampling: Sampling) -> None:
        renderer.use(self.warm_up_recipe, group=self.group)
        renderer.denoise(prompt, sampling)

    def describe(self) -> dict[str, object]:
        return self.recipe.describe()


class PeerContestant(Contestant):
    """A rival. Its FLOPs depend on what it decides, so they are counted, in second runs that are not timed.

    The first few videos stand for all.
    """

    def __init__(self, peer: Peer) -> None:
        self.name, self.peer = peer.name, peer
        self.counted: list[float] = []

    def run(self, renderer: Renderer, prompt: Prompt, sampling: Sampling) -> Run:
        self._learn(renderer, prompt, sampling)
        latents, seconds, peak = timed(lambda: self._denoise(renderer, prompt, sampling))
        flops_full = renderer.full_flops(prompt, sampling)
        if len(self.counted) < NUM_COUNTED:
            with FlopCounterMode(display=False, custom_mapping=CPU_ATTENTION) as counter:
                self._denoise(renderer, prompt, sampling)
            self.counted.append(counter.get_total_flops() / flops_full)
        flops = flops_full * statistics.mean(self.counted)
        return Run(latents=latents, seconds=seconds, peak_bytes=peak, flops=flops, flops_full=flops_full)

    def warm_up(self, renderer: Renderer, prompt: Prompt, sampling: Sampling) -> None:
        self._learn(renderer, prompt, sampling)
        self._denoise(renderer, prompt, sampling)

    def describe(self) -> dict[str, object]:
        return {"name": self.name, "steps": self.peer.steps}

    def _learn(self, renderer: Renderer, prompt: Prompt, sampling: Sampling) -> None:
        if self.peer.learn is not None:
            sample = partial(renderer.denoise_without_engine, prompt, sampling, sampling.steps)
            self.peer.learn(renderer.release(), sampling.steps, sample)

    def _denoise(self, renderer: Renderer, prompt: Prompt, sampling: Sampling) -> Tensor:
        with self.peer.attached(renderer.release(), sampling.steps) as steps:
            return renderer.denoise_without_engine(prompt, sampling, steps)


def timed(denoise: Callable[[], Tensor]) -> tuple[Tensor, float, int]:
    """The result of a call, its seconds, and its peak memory in bytes."""
    with peak_memory() as peak:
        started = time.perf_counter()
        latents = denoise()
        if latents.is_cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
    return latents, seconds, peak.bytes
