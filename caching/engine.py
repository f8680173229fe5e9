"""The caching engine: it replaces a transformer's forward with dense and sparse steps.

Legend: B batch, C latent channels, F frames, H height, W width, N local tokens, P values of a patch.
"""

from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any

import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import Tensor, nn

from caching.attention import Router
from caching.generation import Generation, Progress
from caching.group import Group, LocalGroup
from caching.models import adapter_for
from caching.models.state import Grid
from caching.recipe.recipe import Recipe
from caching.recipe.schedule import Clock, Places
from caching.shards import ShardMap
from caching.site import Site, Timed, untimed
from caching.snapshot import Snapshot, capture, restore

MAX_VARIANTS = 64  # of a compiled block: dense and sparse steps differ in shape, and so do a benchmark's recipes


class Engine:
    """One recipe on one transformer. Call `begin` before each generation, and `end` after it to free what it cached.

    `detach` restores the transformer.

    Args:
        compiler: the backend by which `torch.compile` compiles the blocks; None leaves them as they are.
        timed: told of the parts of each step ("step", "dense", "clustering", "proxies", "simulation"), to see where
            the seconds go.
    """

    def __init__(
        self,
        transformer: nn.Module,
        recipe: Recipe,
        group: Group | None = None,
        *,
        compiler: str | None = None,
        timed: Timed = untimed,
    ) -> None:
        self.transformer, self.recipe, self.timed = transformer, recipe, timed
        self.group: Group = group or LocalGroup()
        self.adapter = adapter_for(transformer)
        self.router = Router(opaque=compiler is not None)
        self.generation: Generation | None = None
        self.times: list[float] = []  # the noise level of each step of the last generation
        self.progress = Progress()  # of the last generation
        self._originals = [attention.processor for attention in self.adapter.attentions]
        for attention in self.adapter.attentions:
            attention.set_processor(self.adapter.processor(self.router))
        patched = [transformer, *(self.adapter.block_list if compiler is not None else ())]
        self._forwards = [(module, vars(module).get("forward")) for module in patched]  # of the instance, if it has one
        if compiler is not None:
            self._compile(compiler)
        transformer.forward = self.forward

    def detach(self) -> None:
        """Give the transformer back exactly as it was; a second call does nothing."""
        if self.transformer.__dict__.get("forward") != self.forward:
            return
        self.end()
        for module, forward in self._forwards:
            vars(module).pop("forward", None)
            if forward is not None:
                module.forward = forward
        for attention, processor in zip(self.adapter.attentions, self._originals, strict=True):
            attention.set_processor(processor)

    def begin(self, grid: Grid, times: list[float], *, decide: Callable[[Clock], Clock] = lambda clock: clock) -> None:
        """Start a generation on a token grid (frames, height, width) with the noise level of each step.

        `decide` may put another clock in place of the schedule's.
        """
        self.end()
        schedule = self.recipe.schedule.fitted(self.adapter.teacache_fit)
        clock, site = decide(schedule.start(len(times))), self._make_site(grid, len(times))
        self.generation = Generation(self.recipe, self.adapter, site, times, clock)
        self.grid, self.times, self.progress = grid, times, self.generation.progress

    def end(self) -> None:
        """Let go of what is cached, after the last step; what was counted stays. A second call does nothing."""
        if self.generation is not None:
            self.generation.close()
        self.generation = None

    def forward(
        self, hidden_states: Tensor, return_dict: bool = True, attention_kwargs: Any = None, **inputs: Any
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """The velocity at the next step, in float32 whatever the model's number format.

        A scheduler gives latents the format of what it is told, and pipelines give that of the latents to the timestep:
        bfloat16 would round both, and a small step would leave a third of the latents as they were.

        Args:
            hidden_states: a latent video `[B, C, F, H, W]`, whole on every rank; or this rank's patches `[B, N, P]`,
                for which nothing is gathered.
            inputs: what else the transformer's forward takes.

        Raises:
            RuntimeError: before `begin`, after the last step, or after `end`.
        """
        generation = self._begun()
        if hidden_states.ndim == 3:
            output = generation.advance(hidden_states, inputs)
        else:
            patches = self.group.shard(self.adapter.unfold(hidden_states))
            output = self.adapter.fold(self.group.gather(generation.advance(patches, inputs)), self.grid)
        return Transformer2DModelOutput(sample=output) if return_dict else (output,)

    def snapshot(self, latents: Tensor) -> Snapshot:
        """The generation after the last step, with the latents that it led to.

        Its tensors are the engine's own: write them before the next step.
        """
        return capture({"latents": latents, "generation": self._begun().state_dict()})

    def restore(self, snapshot: Snapshot) -> Tensor:
        """Go on from a snapshot; gives the latents to go on with.

        Call it after `begin` with the same model, recipe, grid, times and layout. ValueError for a snapshot of another
        version.
        """
        state = restore(snapshot, self._begun().site.device)
        self._begun().load_state_dict(state["generation"])
        return state["latents"]

    def skip_to(self, step: int) -> None:
        """Go on at a step as if all before it had been made; for counting, where values do not matter."""
        self.progress.step = step

    @property
    def step(self) -> int:
        """The steps that are done, and so the number of the next one."""
        return self.progress.step

    @property
    def dense(self) -> list[bool]:
        """Whether each step so far was dense."""
        return self.progress.dense

    @property
    def dense_steps(self) -> int:
        """The dense steps so far."""
        return sum(self.dense)

    @property
    def sparse_steps(self) -> int:
        """The sparse steps so far."""
        return len(self.dense) - sum(self.dense)

    @property
    def peak_cache_bytes(self) -> int:
        """The most that the generation has ever kept."""
        return self.progress.peak_cache_bytes

    @property
    def cache_bytes(self) -> int:
        """What is kept at the moment."""
        return 0 if self.generation is None else self.generation.cache_bytes

    @property
    def settled(self) -> Recipe:
        """The recipe with the dense steps of the last generation, where it chose them as it went."""
        if not self.recipe.schedule.goes_by_values:
            return self.recipe
        places = Places(dense=tuple(step for step, dense in enumerate(self.dense) if dense))
        return replace(self.recipe, schedule=places)

    def _begun(self) -> Generation:
        if self.generation is None:
            raise RuntimeError("call begin() with the grid and the noise levels before each generation")
        return self.generation

    def _make_site(self, grid: Grid, num_steps: int) -> Site:
        num_tokens = prod(grid)
        self.group.divide(self._pieces(num_tokens))
        cosines, sines = self.adapter.rotary(grid, next(self.transformer.parameters()).device)
        return Site(
            group=self.group,
            router=self.router,
            num_tokens=num_tokens,
            num_steps=num_steps,
            rotary=(self.group.shard(cosines[None])[0], self.group.shard(sines[None])[0]),
            timed=self.timed,
        )

    def _pieces(self, num_tokens: int) -> list[int]:
        """The tokens of each rank: whole logical shards where the recipe has any, else as evenly as can be."""
        ranks = self.group.world_size
        num_shards = max(ranks, self.recipe.shards or 1)
        return ShardMap(num_tokens=num_tokens, num_shards=num_shards, world_size=ranks).pieces

    def _compile(self, backend: str) -> None:
        """Compile the blocks, without graph breaks unless modules inside them are cached.

        Their forward alone, not their call: hooks, such as those that gather split weights, run as they are.
        """
        torch._dynamo.config.recompile_limit = max(MAX_VARIANTS, torch._dynamo.config.recompile_limit)
        for block in self.adapter.block_list:
            whole = self.recipe.feature not in ("module", "attention")
            block.forward = torch.compile(block.forward, backend=backend, fullgraph=whole)
