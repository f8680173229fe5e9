"""Sparse steps that compute some tokens in every block and reuse the rest: ToCa, DuCa and ClusCa.

As in their code, attention is not computed anew: a token that is computed takes its attention output from the cache,
so that no other token's key or value is needed. A block is one unit.

Legend: B batch (1), H heads, D hidden width, N local tokens, L text tokens, K tokens computed.
"""

from dataclasses import replace

import torch
from torch import Tensor

from caching.attention import Attend, Triple
from caching.features.blocks import Unit, add, added
from caching.features.selection import ClusterSelector, ScoreSelector, Selector
from caching.models.adapter import Adapter
from caching.models.state import State
from caching.recipe.recipe import Recipe
from caching.recipe.tokens import ClusteredTokens, SelectedTokens
from caching.site import Site
from caching.state_dict import StateDict
from caching.step import Step


class PartialFeature:
    """What each block adds, renewed in sparse steps for the tokens that a selector chooses."""

    follower = None

    def __init__(self, recipe: Recipe, adapter: Adapter, site: Site) -> None:
        self.adapter, self.site, self.order = adapter, site, recipe.predictor.order
        self.selector, self.turns = _selection(recipe, site)
        self.blocks = [Unit(self.order) for _ in range(adapter.num_blocks)]
        self.attentions = [Unit(self.order) for _ in range(adapter.num_blocks)]
        self.last = torch.empty(0)  # the tokens after the last block, when they were computed last
        self.num_sparse, self.since_dense = 0, 0
        self.time, self.keep = 0.0, False  # of the last dense step

    def dense(self, step: Step, *, keep: bool) -> Tensor:
        """Each block's addition and attention output are kept."""
        self.time, self.keep, self.since_dense = step.time, keep, 0
        self.selector.begin_dense()
        state = step.before
        self.site.attend_to_all(state.text.shape[1], self._observe_attention)
        for index, unit in enumerate(self.blocks):
            after = self.adapter.run(index, state)
            if keep:
                unit.observe(step.time, added(state, after))
            state = after
        if keep:
            self.selector.end_dense(state.tokens)
            self.last = state.tokens
        return step.velocity(state)

    def sparse(self, step: Step) -> Tensor:
        """Compute the chosen tokens, or in DuCa's aggressive steps none."""
        self.since_dense += 1
        self.num_sparse += 1
        state = step.before
        if not self._computes():
            return self.adapter.head(State(self.last, state.text, state.modulation, state.rotary))
        index = self.selector.choose(self.num_sparse)
        self.site.router.send(self._attend(step.time, index), 1)
        for block in range(self.adapter.num_blocks):
            state = self._run_some(block, step.time, state, index)
        self.last = state.tokens
        return self.adapter.head(state)

    def detach(self) -> None:
        for unit in [*self.blocks, *self.attentions]:
            unit.forget()

    @property
    def cache_bytes(self) -> int:
        return self.last.nbytes + sum(unit.cache_bytes for unit in [*self.blocks, *self.attentions])

    def state_dict(self) -> StateDict:
        return {
            "units": [unit.state_dict() for unit in [*self.blocks, *self.attentions]],
            "selector": self.selector.state_dict(),
            "last": self.last,
            "num_sparse": self.num_sparse,
            "since_dense": self.since_dense,
        }

    def load_state_dict(self, state: StateDict) -> None:
        for unit, of_unit in zip([*self.blocks, *self.attentions], state["units"], strict=True):
            unit.load_state_dict(of_unit)
        self.selector.load_state_dict(state["selector"])
        self.last, self.num_sparse, self.since_dense = state["last"], state["num_sparse"], state["since_dense"]

    def _observe_attention(self, layer: int, image: Triple, text: Triple, outputs: tuple[Tensor, Tensor]) -> None:
        """Keep a layer's attention outputs, image `[B, H, N, D]` and that of one text token."""
        if self.keep:
            self.attentions[layer].observe(self.time, (outputs[0], outputs[1][:, :, :1]))
            self.selector.observe_layer(image, text)

    def _computes(self) -> bool:
        """Whether this sparse step computes tokens at all."""
        return self.turns == "all" or (self.since_dense % 2 == 1) == (self.turns == "odd")

    def _attend(self, time: float, index: Tensor) -> Attend:
        def attend(layer: int, *_: Tensor) -> tuple[Tensor, Tensor]:
            image, text = self.attentions[layer].outputs
            return image.predict(time, (slice(None), slice(None), index)), text.predict(time)

        return attend

    def _run_some(self, block: int, time: float, state: State, index: Tensor) -> State:
        """The state after a block: true for the chosen tokens, cached for the others."""
        chosen = replace(state.at(index), text=self.adapter.text_for_some(state.text))
        true = self.adapter.run(block, chosen).tokens - chosen.tokens
        cached, text = self.blocks[block].predict(time)
        tokens = self.selector.renewed(cached, true, index)
        if self.order == 0:
            self.blocks[block].outputs[0].derivatives = [tokens]
        return add(state, (tokens, text))


def _selection(recipe: Recipe, site: Site) -> tuple[Selector, str]:
    """Who chooses, and in which sparse steps after a dense one."""
    match recipe.tokens:
        case ClusteredTokens() as tokens:
            return ClusterSelector(tokens, site), "all"
        case SelectedTokens() as tokens:
            return ScoreSelector(tokens, site), tokens.turns
    raise AssertionError(f"no tokens are selected by {recipe.tokens}")
