"""The caching engine: it replaces a transformer's forward with dense and sparse steps.

Legend: B batch, C latent channels, F frames, H height, W width, N local tokens, P values of a patch.
"""

from dataclasses import replace
from functools import cache
from math import prod
from typing import Any

import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import Tensor, nn

from caching.attention import Router
from caching.features.output import OutputFeature
from caching.features.registry import make_feature
from caching.group import Group, LocalGroup
from caching.models import adapter_for
from caching.models.state import State
from caching.predict.correction import Correction, ExtrapolationError
from caching.proxies.proxies import Proxies
from caching.recipe.recipe import ProxyTaylor, Recipe
from caching.recipe.schedule import ErrorEstimate, InputChange, Places, Signals
from caching.recipe.tokens import TrajectoryMedoids
from caching.shards import ShardMap
from caching.site import Site
from caching.snapshot import Snapshot, capture, restore
from caching.text import TextTrimmer

# What a step changes and later ones read.
STATE = ("step", "dense", "clock", "last_input", "feature", "correction", "error", "proxies", "peak_cache_bytes")
MAX_VARIANTS = 64  # of a compiled block: dense and sparse steps differ in shape, and so do a benchmark's recipes


class Engine:
    """One recipe on one transformer. Call `begin` before each generation, and `end` after it to free what it cached.

    `detach` restores the transformer. `compiler` names the backend by which `torch.compile` compiles the blocks; None
    leaves them as they are.
    """

    feature: OutputFeature | None = None  # this and what follows: of the generation that `begin` began, until its `end`
    proxies: Proxies | None = None
    last_input: Tensor | None = None
    peak_cache_bytes = 0

    def __init__(
        self, transformer: nn.Module, recipe: Recipe, group: Group | None = None, *, compiler: str | None = None
    ) -> None:
        self.transformer, self.recipe = transformer, recipe
        self.group: Group = group or LocalGroup()
        self.adapter = adapter_for(transformer)
        self.router = Router(opaque=compiler is not None)
        self.originals = [attention.processor for attention in self.adapter.attentions]
        for attention in self.adapter.attentions:
            attention.set_processor(self.adapter.processor(self.router))
        patched = [transformer, *(self.adapter.block_list if compiler is not None else ())]
        self.forwards = [(module, vars(module).get("forward")) for module in patched]  # of the instance, if it has one
        if compiler is not None:
            self._compile(compiler)
        transformer.forward = self.forward

    def detach(self) -> None:
        """Give the transformer back exactly as it was; a second call does nothing."""
        if self.transformer.__dict__.get("forward") != self.forward:
            return
        self.end()
        for module, forward in self.forwards:
            vars(module).pop("forward", None)
            if forward is not None:
                module.forward = forward
        for attention, processor in zip(self.adapter.attentions, self.originals, strict=True):
            attention.set_processor(processor)

    def _compile(self, backend: str) -> None:
        """Compile the blocks, without graph breaks unless modules inside them are cached.

        Their forward alone, not their call: hooks, such as those that gather split weights, run as they are.
        """
        torch._dynamo.config.recompile_limit = max(MAX_VARIANTS, torch._dynamo.config.recompile_limit)
        for block in self.adapter.block_list:
            whole = self.recipe.feature not in ("module", "attention")
            block.forward = torch.compile(block.forward, backend=backend, fullgraph=whole)

    def begin(self, grid: tuple[int, int, int], times: list[float]) -> None:
        """Start a generation on a token grid (frames, height, width) with the noise level of each step."""
        self.end()
        self.grid, self.times, self.step = grid, times, 0
        schedule = self.recipe.schedule
        if isinstance(schedule, InputChange):
            schedule = schedule.fitted(self.adapter.teacache_fit)
        self.clock = schedule.start(len(times))
        self.dense: list[bool] = []  # the steps so far
        self.text = TextTrimmer()
        self.group.divide(self._pieces(prod(grid)))
        cosines, sines = self.adapter.rotary(grid, next(self.transformer.parameters()).device)
        self.rotary = (self.group.shard(cosines[None])[0], self.group.shard(sines[None])[0])
        self.site = Site(
            group=self.group, router=self.router, num_tokens=prod(grid), num_steps=len(times), rotary=self.rotary
        )
        self.feature = make_feature(self.recipe, self.adapter, self.site)
        self.correction = Correction(self.recipe.predictor.order, self.recipe.predictor.correction)
        self.error = ExtrapolationError(self.recipe.predictor.order)
        self.proxies = self._make_proxies()
        self.peak_cache_bytes = 0

    def end(self) -> None:
        """Let go of what is cached, after the last step; what was counted stays. A second call does nothing."""
        if self.feature is not None:
            self.feature.detach()
        self.router.forget()
        self.feature = self.proxies = self.last_input = None

    def _pieces(self, num_tokens: int) -> list[int]:
        """The tokens of each rank: whole logical shards where the recipe has any, else as evenly as can be."""
        ranks = self.group.world_size
        num_shards = max(ranks, getattr(self.recipe.tokens, "shards", 1))
        return ShardMap(num_tokens=num_tokens, num_shards=num_shards, world_size=ranks).pieces

    def forward(
        self, hidden_states: Tensor, return_dict: bool = True, attention_kwargs: Any = None, **inputs: Any
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """The velocity at the next step.

        Args:
            hidden_states: a latent video `[B, C, F, H, W]`, whole on every rank; or this rank's patches `[B, N, P]`,
                for which nothing is gathered.
            inputs: what else the transformer's forward takes.

        Raises:
            RuntimeError: before `begin`, after the last step, or after `end`.
        """
        if self.feature is None or self.step >= len(self.times):
            raise RuntimeError("call begin() with the grid and the noise levels before each generation")
        if hidden_states.ndim == 3:
            output = self._advance(hidden_states, self.text.trim(inputs))
        else:
            patches = self.group.shard(self.adapter.unfold(hidden_states))
            output = self.adapter.fold(self.group.gather(self._advance(patches, self.text.trim(inputs))), self.grid)
        return Transformer2DModelOutput(sample=output) if return_dict else (output,)

    def snapshot(self, latents: Tensor) -> Snapshot:
        """The generation after the last step, with the latents that it led to. TypeError if it cannot be taken down.

        Its tensors are the engine's own: write them before the next step.
        """
        state = {"latents": latents, **{name: getattr(self, name) for name in STATE}}
        return capture(state, fixed=(self.adapter, self.group, self.router, self.rotary))

    def restore(self, snapshot: Snapshot) -> Tensor:
        """Go on from a snapshot; gives the latents to go on with.

        Call it after `begin` with the same model, recipe, grid, times and layout. ValueError if the state does not fit.
        """
        begun = {name: getattr(self, name) for name in STATE}
        state = restore(snapshot, begun, next(self.transformer.parameters()).device)
        vars(self).update({name: state[name] for name in STATE})
        return state["latents"]

    @property
    def dense_steps(self) -> int:
        """The dense steps so far."""
        return sum(self.dense)

    @property
    def sparse_steps(self) -> int:
        """The sparse steps so far."""
        return len(self.dense) - sum(self.dense)

    @property
    def settled(self) -> Recipe:
        """The recipe with the dense steps of the last generation, where it chose them as it went."""
        if not isinstance(self.recipe.schedule, InputChange | ErrorEstimate):
            return self.recipe
        places = Places(dense=tuple(step for step, dense in enumerate(self.dense) if dense))
        return replace(self.recipe, schedule=places)

    def _advance(self, patches: Tensor, inputs: dict[str, Any]) -> Tensor:
        assert self.feature is not None
        step, self.step = self.step, self.step + 1
        time = self.times[step] if self.recipe.predictor.axis == "sigma" else float(step)
        span = [*self.times, 0.0][step + 1] - self.times[step]
        embed = cache(lambda: self._embed(patches, inputs))
        signals = Signals(
            input_change=lambda: self._input_change(embed()), error=lambda: self._expected_error(time, span)
        )
        self.dense.append(self.clock.is_dense(step, signals))
        if self.dense[-1]:
            self.group.mark("dense", step + 1)
            keep = self.feature.keeps_all or self.clock.may_be_sparse_after(step)
            return self._dense(time, span, embed(), patches.dtype, keep=keep)
        self.group.mark("sparse", step + 1)
        self.correction.sparse(time, span)
        if self.proxies is not None and self.proxies.simulation is not None:
            value = self.proxies.advance(time, patches, inputs)
            if self.proxies.truth is not None:
                self._measure_error(time, self.proxies.truth, self.proxies.index)
            return self.feature.answer(value, embed).to(patches.dtype)
        return self.feature.sparse(time, embed).to(patches.dtype)

    def _embed(self, patches: Tensor, inputs: dict[str, Any]) -> State:
        """The state before the first block; whoever then runs blocks attends to everyone, if nothing else is sent."""
        state = self.adapter.embed(patches, self.rotary, **inputs)
        self.router.send(self._attend_and_tell(None), state.text.shape[1])
        return state

    def _dense(self, time: float, span: float, before: State, dtype: torch.dtype, keep: bool) -> Tensor:
        """Compute every token; keep what later steps need, if any do."""
        assert self.feature is not None
        proxies = self.proxies if keep else None
        self.router.send(self._attend_and_tell(proxies), before.text.shape[1])
        after = self.feature.run(time, before, keep=keep)
        velocity = self.adapter.head(after).to(dtype)
        self._measure_error(time, self.feature.value(before, after, lambda: velocity))
        self.error.dense(time)
        answer = self._corrected(velocity, time, span)
        if keep:
            self._keep(time, before, after, velocity, proxies)
        return self.feature.settle(answer)

    def _corrected(self, velocity: Tensor, time: float, span: float) -> Tensor:
        """The velocity that also makes good what the sparse steps before this dense one did wrong."""
        answer = velocity
        if self.correction.due:
            answer = velocity + self.correction.weight(time) / span * (velocity - self._predicted(time))
        self.correction.dense(time)
        return answer

    def _predicted(self, time: float) -> Tensor:
        """What a sparse step would have answered in place of a dense one."""
        if self.proxies is not None and self.proxies.simulation is not None:
            return self.proxies.simulation.advance(time)
        assert self.feature is not None
        return self.feature.taylor.predict(time)

    def _keep(self, time: float, before: State, after: State, velocity: Tensor, proxies: Proxies | None) -> None:
        """End a dense step that later ones learn from."""
        assert self.feature is not None
        if proxies and proxies.simulation:
            proxies.learn(time, self.feature.value(before, after, lambda: velocity))
        self.feature.observe(time, before, after, velocity)
        if proxies:
            proxies.choose(time, after.tokens, before.text)
        self.peak_cache_bytes = max(self.peak_cache_bytes, self.cache_bytes)

    def _input_change(self, state: State) -> float | None:
        """The relative change (L1) of the first block's modulated input since the last step; equal on all ranks."""
        if state.tokens.device.type == "meta":
            return None
        value = self.adapter.modulated(state)
        last, self.last_input = value if self.last_input is None else self.last_input, value
        self.group.mark("decision", self.step)
        # Many tokens add up to more than float16 can hold.
        sums = [each.abs().sum(dtype=torch.float32) for each in (value - last, last)]
        change, size = self.group.total(torch.stack(sums)).tolist()
        return change / size

    def _measure_error(self, time: float, truth: Tensor, tokens: Tensor | slice = slice(None)) -> None:
        """For a schedule that goes by the error: see how wrong the extrapolation is, by tokens that were computed."""
        assert self.feature is not None
        if isinstance(self.recipe.schedule, ErrorEstimate) and self.error.ready and truth.device.type != "meta":
            self.group.mark("decision", self.step)
            self.error.measure(time, self.feature.taylor.predict(time, (slice(None), tokens)), truth, self.group)

    def _expected_error(self, time: float, span: float) -> float | None:
        """What a sparse step of `span` would add to the error of the latents, in units of the velocity."""
        if next(self.transformer.parameters()).device.type == "meta":
            return None
        return abs(span) * self.error.at(time)

    def _attend_and_tell(self, proxies: Proxies | None) -> Any:
        """Attention over all ranks' tokens; feature and proxies hear of it."""
        feature = self.feature
        assert feature is not None

        def attend(layer: int, query, key, value, text_query, text_key, text_value) -> tuple[Tensor, Tensor]:
            outputs = self.group.attend(query, key, value, text_query, text_key, text_value)
            if proxies is not None:
                proxies.context.record(key, value, text_key, text_value)
            feature.hear(layer, (query, key, value), (text_query, text_key, text_value), outputs)
            return outputs

        return attend

    def _make_proxies(self) -> Proxies | None:
        tokens, predictor = self.recipe.tokens, self.recipe.predictor
        if not isinstance(tokens, TrajectoryMedoids):
            return None
        assert isinstance(predictor, ProxyTaylor)
        assert self.feature is not None
        return Proxies(self.adapter, self.feature, self.site, tokens, predictor)

    @property
    def cache_bytes(self) -> int:
        caches = [cache for cache in (self.feature, self.proxies) if cache is not None]
        return sum(cache.cache_bytes for cache in caches)
