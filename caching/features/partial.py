"""Sparse steps that compute some tokens in every block and reuse the rest: ToCa, DuCa and ClusCa.

As in their code, attention is not computed anew: a token that is computed takes its attention output from the cache,
so that no other token's key or value is needed. A block is one unit.

Legend: B batch (1), H heads, D hidden width, N local tokens, L text tokens, K tokens computed.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from caching.attention import Triple
from caching.features.blocks import Unit
from caching.features.output import OutputFeature, add, added
from caching.features.selection import ClusterSelector, Selector
from caching.models.state import State
from caching.recipe.tokens import ClusteredTokens, SelectedTokens
from caching.site import Site


class PartialFeature(OutputFeature):
    """What each block adds, renewed in sparse steps for the tokens that a selector chooses."""

    def __init__(self, adapter: Any, order: int, tokens: SelectedTokens | ClusteredTokens, site: Site) -> None:
        super().__init__(adapter, order)
        self.settings, self.site, self.order = tokens, site, order
        clustered = isinstance(tokens, ClusteredTokens)
        self.selector: Selector | ClusterSelector = (
            ClusterSelector(tokens, site) if clustered else Selector(tokens, site)
        )
        self.blocks = [Unit(order) for _ in range(adapter.num_blocks)]
        self.attentions = [Unit(order) for _ in range(adapter.num_blocks)]
        self.last: Tensor | None = None  # the tokens after the last block, when they were computed last
        self.step, self.since_dense, self.time, self.keep = 0, 0, 0.0, False

    def run(self, time: float, state: State, *, keep: bool) -> State:
        """A dense step; each block's addition and attention output are kept."""
        self.time, self.keep, self.since_dense = time, keep, 0
        self.selector.begin_dense()
        for index, unit in enumerate(self.blocks):
            after = self.adapter.run(index, state)
            if keep:
                unit.observe(time, added(state, after))
            state = after
        if keep:
            self.selector.end_dense(state.tokens)
            self.last = state.tokens
        return state

    def hear(self, layer: int, image: Triple, text: Triple, outputs: tuple[Tensor, Tensor]) -> None:
        """Keep a layer's attention outputs, image `[B, H, N, D]` and that of one text token."""
        if self.keep:
            self.attentions[layer].observe(self.time, (outputs[0], outputs[1][:, :, :1]))
            self.selector.hear(image, text)

    def observe(self, time: float, before: State, after: State, velocity: Tensor) -> None:
        """Nothing: blocks observe on the way."""

    def sparse(self, time: float, embed: Callable[[], State]) -> Tensor:
        """Compute the chosen tokens, or in DuCa's aggressive steps none."""
        self.since_dense += 1
        self.step += 1
        state = embed()
        if not self._computes():
            assert self.last is not None
            return self.adapter.head(State(self.last, state.text, state.modulation, state.rotary))
        index = self.selector.choose(self.step)
        self.site.router.send(self._attend(time, index), 1)
        for block in range(self.adapter.num_blocks):
            state = self._run_some(block, time, state, index)
        self.last = state.tokens
        return self.adapter.head(state)

    @property
    def cache_bytes(self) -> int:
        own = self.last.nbytes if self.last is not None else 0
        return own + sum(unit.cache_bytes for unit in [*self.blocks, *self.attentions])

    def _computes(self) -> bool:
        """Whether this sparse step computes tokens at all."""
        if isinstance(self.settings, ClusteredTokens) or self.settings.turns == "all":
            return True
        return (self.since_dense % 2 == 1) == (self.settings.turns == "odd")

    def _attend(self, time: float, index: Tensor):
        def attend(layer: int, *_: Tensor) -> tuple[Tensor, Tensor]:
            image, text = self.attentions[layer].outputs
            return image.predict(time, (slice(None), slice(None), index)), text.predict(time)

        return attend

    def _run_some(self, block: int, time: float, state: State, index: Tensor) -> State:
        """The state after a block: true for the chosen tokens, cached for the others."""
        rotary = (state.rotary[0][index], state.rotary[1][index])
        chosen = State(state.tokens[:, index], self.adapter.text_for_some(state.text), state.modulation, rotary)
        true = self.adapter.run(block, chosen).tokens - chosen.tokens
        cached, text = self.blocks[block].predict(time)
        tokens = self._renewed(cached, true, index)
        if self.order == 0:
            self.blocks[block].outputs[0].derivatives = [tokens]
        return add(state, (tokens, text))

    def _renewed(self, cached: Tensor, true: Tensor, index: Tensor) -> Tensor:
        """What a block adds to each token `[B, N, D]`, given what it adds to those computed `[B, K, D]`.

        The others learn nothing from them, but for ClusCa.
        """
        if not isinstance(self.selector, ClusterSelector):
            return cached.index_copy(1, index, true)
        moved = torch.lerp(cached, true[:, self.selector.cluster_of], self.selector.settings.gain)
        return moved.index_copy_(1, index, true)
