"""What the analyses share: a loaded model, full samplings to compare with, and what can be seen on the way.

Legend: T steps, N tokens, D hidden width, P values of a patch.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from caching.models import adapter_for
from caching.recipe.recipe import RECIPES, Recipe
from caching.site import Timed, untimed
from jobs.measure.sampling.judge import Judge
from jobs.measure.sampling.task import Model

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Analysis:
    """What an analysis found: a table, and how to draw it on a figure of some height in inches."""

    rows: Sequence[Mapping[str, object]]
    draw: Callable[["Figure"], None]
    height: float = 5


@dataclass(frozen=True, kw_only=True)
class Score:
    """What a method gives and costs: PSNR of each prompt's final latents against full sampling, in decibels."""

    psnr_db: list[float]
    dense_steps: int
    tflops: float
    """Of one video, by count."""
    seconds: float
    """Of one video, on average."""


@dataclass
class Study:
    """One model and a few prompts, all of one size."""

    model: Model
    judge: Judge
    _features: dict[int, Tensor] = field(default_factory=dict)

    @property
    def num_prompts(self) -> int:
        return len(self.judge.items)

    @property
    def steps(self) -> int:
        return self.judge.items[0].steps

    def features(self, prompt: int) -> Tensor:
        """Hidden states after the last block in full sampling `[T, N, D]`; where it is guided, of the first pass."""
        if prompt not in self._features:
            seen = self._watch(lambda each: each.norm_out, RECIPES["full"], prompt)
            self._features[prompt] = torch.stack(seen)[:, 0].float()
        return self._features[prompt]

    def trajectory(self, method: Recipe, prompt: int) -> Tensor:
        """The patches of the latents before each step `[T, N, P]`."""
        seen = self._watch(lambda each: each, method, prompt)
        adapter = adapter_for(self.model.renderer.transformers[0])
        patches = [each if each.ndim == 3 else adapter.unfold(each) for each in seen]
        return torch.stack(patches)[:, 0].float()

    def sample(self, method: Recipe, timed: Timed = untimed) -> None:
        """Sample every prompt; `timed` is told of the parts of each step."""
        self.model.renderer.use(method, timed=timed)
        for item in self.judge.items:
            self.model.renderer.denoise(self.model.prompt(item), self.model.sampling(item))

    def score(self, method: Recipe) -> Score:
        """Of all prompts."""
        started = time.perf_counter()
        psnr_db = self.judge.latent_db(method)
        seconds = (time.perf_counter() - started) / self.num_prompts
        renderer, last = self.model.renderer, self.judge.items[-1]
        assert renderer.engine is not None
        flops, _ = renderer.flops(self.model.prompt(last), self.model.sampling(last))
        return Score(psnr_db=psnr_db, dense_steps=renderer.engine.dense_steps, tflops=flops / 1e12, seconds=seconds)

    def _watch(
        self,
        part: Callable[[Any], torch.nn.Module],  # of a transformer, whichever class it is of
        method: Recipe,
        prompt: int,
    ) -> list[Tensor]:
        """Sample a prompt, and see what each step's first call of a part of the transformers works on."""
        seen: list[Tensor] = []
        renderer, item = self.model.renderer, self.judge.items[prompt]
        renderer.use(method)
        handles = [
            part(transformer).register_forward_pre_hook(
                lambda _, given, named: seen.append(_first(given, named).clone()), with_kwargs=True
            )
            for transformer in renderer.transformers
        ]
        try:
            renderer.denoise(self.model.prompt(item), self.model.sampling(item))
        finally:
            for handle in handles:
                handle.remove()
        calls = 1 if renderer.family.doubles_batch else len(self.model.prompt(item).texts)
        return seen[::calls]


def _first(given: tuple[Tensor, ...], named: Mapping[str, Tensor]) -> Tensor:
    """The tensor that a module is called with, by place or by name."""
    return given[0] if given else named["hidden_states"]


def residuals(values: Tensor, order: int) -> Tensor:
    """Differences between successive steps, `order` times over: `[T, ...]` to `[T - order, ...]` (ResCa, Eq. S4)."""
    for _ in range(order):
        values = values[1:] - values[:-1]
    return values
