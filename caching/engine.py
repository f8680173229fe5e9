"""The caching engine: it replaces a transformer's forward with dense and sparse steps.

Legend: B batch, C latent channels, F frames, H height, W width, N local tokens, P values of a patch.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any

import torch
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from torch import Tensor, nn

from caching.attachment import Attachment
from caching.attention import Attend
from caching.generation import Generation, Progress
from caching.group import Group, LocalGroup
from caching.models.adapter import Adapter, Inputs
from caching.models.state import Grid
from caching.passes import Stage
from caching.recipe.clock import Clock
from caching.recipe.recipe import Recipe
from caching.recipe.schedule import Places
from caching.shards import ShardMap
from caching.site import Site, Timed, untimed
from caching.snapshot import Snapshot, capture, restore
from caching.state_dict import StateDict
from caching.text import is_even


class Engine:
    """One recipe on one model. Call `begin` before each generation, and `end` after it to free what it cached.

    `detach` restores the model.

    Args:
        transformer: the model, or its transformers in the order in which they take over from each other.
        compiler: the backend by which `torch.compile` compiles the blocks; None leaves them as they are.
        timed: told of the parts of each pass ("step", "dense", "clustering", "proxies", "simulation"), to see where
            the seconds go.
        device: where the models run, if they wait elsewhere in between.
    """

    def __init__(
        self,
        transformer: nn.Module | Sequence[nn.Module],
        recipe: Recipe,
        group: Group | None = None,
        *,
        compiler: str | None = None,
        timed: Timed = untimed,
        device: torch.device | None = None,
    ) -> None:
        transformers = [transformer] if isinstance(transformer, nn.Module) else transformer
        self.recipe, self.timed, whole = recipe, timed, not recipe.caches_modules
        self.group: Group = group or LocalGroup()
        self.attachments = [Attachment(each, self._answer, compiler=compiler, whole=whole) for each in transformers]
        self.transformer, self.adapter = self.attachments[0].transformer, self.attachments[0].adapter
        self.device = device or next(self.transformer.parameters()).device
        self.generation: Generation | None = None
        self.times: list[float] = []  # the noise level of each step of the last generation
        self.progress = Progress()  # of the last generation

    def detach(self) -> None:
        """Give the model back exactly as it was; a second call does nothing."""
        if all([each.detach() for each in self.attachments]):
            self.end()

    def begin(
        self,
        grid: Grid,
        times: list[float],
        *,
        batched: int = 1,
        decide: Callable[[Clock], Clock] = lambda clock: clock,
    ) -> None:
        """Start a generation on a token grid (frames, height, width) with the noise level of each step.

        `batched` is how many passes a call holds, as parts of its batch (2 where a pipeline doubles the batch for
        guidance). `decide` may put another clock in place of the schedule's.
        """
        self.end()
        schedule = self.recipe.schedule.fitted(self.adapter.teacache_fit)
        clock, stages = decide(schedule.start(len(times))), self._make_stages(grid, len(times))
        self.generation = Generation(self.recipe, stages, times, clock)
        self.grid, self.times, self.batched, self.progress = grid, times, batched, self.generation.progress

    def end(self) -> None:
        """Let go of what is cached, after the last step; what was counted stays. A second call does nothing."""
        if self.generation is not None:
            self.generation.close()
        self.generation = None

    def forward(
        self, hidden_states: Tensor, return_dict: bool = True, attention_kwargs: Any = None, **inputs: Any
    ) -> Transformer2DModelOutput | tuple[Tensor]:
        """The velocity of the next step, in float32 whatever the model's number format.

        Each call is a step, but in `of_pass`. A pipeline calls the transformer itself, where the names of passes, or
        else the timestep, tell whether a call is of the same step.

        A scheduler gives latents the format of what it is told, and pipelines give that of the latents to the timestep:
        bfloat16 would round both, and a small step would leave a third of the latents as they were.

        Args:
            hidden_states: a latent video `[B, C, F, H, W]`, whole on every rank; or this rank's tokens, for which
                nothing is gathered: a video of one a frame (`column`), or their patches `[B, N, P]`.
            inputs: what else the transformer's forward takes.

        Raises:
            RuntimeError: before `begin`, after the last step, or after `end`.
        """
        first = self.attachments[0]
        with self.of_pass(first.pass_name or "sole"):
            return first.forward(hidden_states, return_dict, attention_kwargs, **inputs)

    def of_pass(self, name: str) -> AbstractContextManager[None]:
        """Calls in the block are of the pass of this name, as `cache_context` of diffusers says it."""
        return self.attachments[0].cache_context(name)

    def snapshot(self, latents: Tensor, solver: StateDict | None = None) -> Snapshot:
        """The generation after the last step, with the latents that it led to, and what a solver keeps between steps.

        Its tensors are the engine's own: write them before the next step.
        """
        beside = {} if solver is None else {"solver": solver}
        return capture({"latents": latents, "generation": self._begun().state_dict(), **beside})

    def restore(self, snapshot: Snapshot) -> tuple[Tensor, StateDict]:
        """Go on from a snapshot; gives the latents to go on with, and what the solver kept.

        Call it after `begin` with the same model, recipe, grid, times and layout. ValueError for a snapshot of another
        version.
        """
        state = restore(snapshot, self.device)
        self._begun().load_state_dict(state["generation"])
        return state["latents"], state.get("solver", {})

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

    def _answer(self, attachment: Attachment, hidden_states: Tensor, inputs: Inputs) -> Tensor:
        generation, adapter, are_patches = self._begun(), attachment.adapter, hidden_states.ndim == 3
        is_whole = not are_patches and self._is_whole(adapter.grid(hidden_states))
        if self.group.num_parts > 1 and is_whole:
            raise ValueError("guidance in parallel needs calls on a rank's own tokens")
        patches = hidden_states if are_patches else adapter.unfold(hidden_states)
        own = self.group.shard(patches) if is_whole else patches
        velocity = self._velocity(generation, attachment, own, inputs)
        if is_whole:
            return adapter.fold(self.group.gather(velocity), self.grid)
        answer = velocity if are_patches else column(adapter, velocity)
        is_known = self.group.num_parts == 1 or self.batched > 1  # else its values may come later
        assert is_known or answer.data_ptr() == velocity.data_ptr()
        return answer

    def _is_whole(self, grid: Grid) -> bool:
        """Whether tokens on a grid are a whole video, and not a column of one rank's.

        Only where one rank has all tokens of a video that is itself a column are they both.
        """
        return grid == self.grid and (grid[1:] != (1, 1) or self.group.sequence_size > 1)

    def _velocity(self, generation: Generation, attachment: Attachment, patches: Tensor, inputs: Inputs) -> Tensor:
        """Of each pass that a call holds `[B, N, P]`.

        A batch whose passes keep nothing for later stays together: apart, its sums would round in another way. Parts of
        the ranks share it out; what others compute is known when all passes have been asked for.
        """
        number, name = self.attachments.index(attachment), attachment.pass_name
        keeps_nothing = not self.recipe.schedule.has_sparse_steps and self.group.num_parts == 1
        as_one = not attachment.adapter.drops_padding or is_even(inputs)
        if self.batched == 1 or (keeps_nothing and as_one):
            return generation.advance(number, name, patches, inputs)
        names = [f"{name or 'pass'} {part}" for part in range(self.batched)]
        given = _parted(inputs, len(patches), self.batched, attachment.adapter.batch_dims)
        parts = zip(names, patches.chunk(self.batched), given, strict=True)
        return torch.cat([generation.advance(number, *part) for part in parts])

    def _make_stages(self, grid: Grid, num_steps: int) -> list[Stage]:
        num_tokens = prod(grid)
        self.group.divide(self._pieces(num_tokens))
        return [self._make_stage(model, grid, num_tokens, num_steps) for model in range(len(self.attachments))]

    def _make_stage(self, model: int, grid: Grid, num_tokens: int, num_steps: int) -> Stage:
        attachment = self.attachments[model]
        adapter = attachment.adapter
        if self.group.sequence_size > 1 and not adapter.attends_to_all:
            raise ValueError("tokens of this model attend in space and in time by turns; it works on one rank")
        cosines, sines = (each.to(self.device) for each in adapter.rotary(grid, self.device))
        site = Site(
            group=self.group,
            router=attachment.router,
            num_tokens=num_tokens,
            num_steps=num_steps,
            rotary=(self.group.shard(cosines[None])[0], self.group.shard(sines[None])[0]),
            grid=grid if self.group.sequence_size == 1 else None,
            attend=self._attend(adapter, grid),
            timed=self.timed,
            model=model,
        )
        return Stage(adapter, site)

    def _attend(self, adapter: Adapter, grid: Grid) -> Attend | None:
        """A layer's attention where it is not the group's own, of image and text in this order."""
        if not adapter.attends_to_all:
            return partial(adapter.attend, grid)
        has_all = self.group.sequence_size == 1 and self.group.num_parts == 1
        return self._attend_text_first if adapter.text_first and has_all else None

    def _attend_text_first(self, layer: int, *states: Tensor) -> tuple[Tensor, Tensor]:
        """The same sums in another order, which is the model's own: so they are rounded as it rounds them."""
        text, image = self.group.attend(*states[3:], *states[:3])
        return image, text

    def _pieces(self, num_tokens: int) -> list[int]:
        """The tokens of each rank: whole logical shards where the recipe has any, else as evenly as can be."""
        ranks = self.group.sequence_size
        num_shards = max(ranks, self.recipe.shards or 1)
        return ShardMap(num_tokens=num_tokens, num_shards=num_shards, world_size=ranks).pieces


def column(adapter: Adapter, patches: Tensor) -> Tensor:
    """Any tokens, as patches `[B, N, P]`, as a latent video of one a frame `[B, C, N pt, ph, pw]`.

    In this form pipelines, which put channels beside the latents or ask for their size, take a part of a video. It is a
    view of the patches where these have one frame.
    """
    return adapter.fold(patches, (patches.shape[1], 1, 1))


def _parted(inputs: Inputs, batch: int, num_parts: int, batch_dims: Mapping[str, int]) -> list[Inputs]:
    """The inputs of each part of a batch; what is not one for each of its members is the same for all parts."""

    def part(name: str, value: object, number: int) -> object:
        if isinstance(value, Mapping):
            return {inner: part(inner, each, number) for inner, each in value.items()}
        dim = batch_dims.get(name, 0)
        if isinstance(value, Tensor) and value.ndim > dim and value.shape[dim] == batch:
            return value.chunk(num_parts, dim)[number]
        return value

    return [{name: part(name, value, number) for name, value in inputs.items()} for number in range(num_parts)]
