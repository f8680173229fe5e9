"""Sparse steps that compute fewer, merged tokens: ToMeSD, AT-EDM and SDTM.

Tokens are matched once a step, inside logical shards, by the features that enter the first block. In every block the
merged tokens go through the model, and what the block adds to one of them is given to all that it stands for.

Legend: B batch (1), D hidden width, N local tokens, M merged tokens.
"""

from dataclasses import replace
from itertools import accumulate, pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from caching.attention import Triple
from caching.features.selection import measure, random_scores
from caching.models.adapter import Adapter, run_blocks
from caching.models.state import State
from caching.recipe.recipe import Recipe
from caching.recipe.tokens import MergedTokens
from caching.site import Site
from caching.state_dict import StateDict
from caching.step import Step

DESTINATIONS = 0.25  # of the tokens can have others merged into them, where these are random (ToMeSD: one in 2 x 2)


class Match:
    """Which token stands for which.

    Args:
        kept: local tokens that stay, `[M]`.
        place: of each local token `[N]`, its place among those.
    """

    def __init__(self, kept: Tensor, place: Tensor) -> None:
        self.kept, self.place = kept, place
        self.sizes = torch.zeros_like(kept).index_add(0, place, torch.ones_like(place))  # exact in whole numbers
        self.by_place = place.argsort(stable=True)

    def merge(self, tokens: Tensor) -> Tensor:
        """Means over those that each token stands for, `[1, N, D]` to `[1, M, D]`.

        Bags of an embedding, because these add up in float32 and in one order always, on a GPU as well.
        """
        first = self.sizes.cumsum(0) - self.sizes
        return F.embedding_bag(self.by_place, tokens[0], first, mode="mean")[None]

    def pick(self, tokens: Tensor) -> Tensor:
        """The tokens that stay, as they are."""
        return tokens[:, self.kept]

    def spread(self, merged: Tensor) -> Tensor:
        """`[B, M, D]` back to `[B, N, D]`."""
        return merged[:, self.place]


class MergingFeature:
    """A dense step computes every token; a sparse one merges `ratio` of them into others. Nothing is predicted."""

    follower = None

    def __init__(self, recipe: Recipe, adapter: Adapter, site: Site) -> None:
        assert isinstance(recipe.tokens, MergedTokens)
        self.settings, self.adapter, self.site = recipe.tokens, adapter, site
        self.shards = site.shard_map(self.settings.shards)
        self.padded, self.valid = self.shards.padded(site.device)
        self.importance: Tensor | None = None  # of each local token [N], in the last dense step
        self.sampled = 0

    def dense(self, step: Step, *, keep: bool) -> Tensor:
        self.importance = None
        self.sampled += 1
        state = step.before
        self.site.attend_to_all(state.text.shape[1], self._observe_attention)
        return step.velocity(run_blocks(self.adapter, state))

    def sparse(self, step: Step) -> Tensor:
        """The velocity `[B, N, P]` by way of merged tokens."""
        self.sampled += 1
        state = step.before
        match = self._match(F.normalize(state.tokens[0].float(), dim=-1))
        self.site.attend_to_all(state.text.shape[1])
        self.site.group.divide(self._merged_pieces)
        reduce = match.pick if self.settings.keep == "attended" else match.merge
        for index in range(self.adapter.num_blocks):
            merged = replace(state.at(match.kept), tokens=reduce(state.tokens))
            after = self.adapter.run(index, merged)
            tokens = state.tokens + match.spread(after.tokens - merged.tokens)
            state = State(tokens, after.text, state.modulation, state.rotary)
        self.site.group.divide(self.shards.pieces)
        return self.adapter.head(state)

    def detach(self) -> None:
        self.importance = None

    @property
    def cache_bytes(self) -> int:
        return 0 if self.importance is None else self.importance.nbytes

    def state_dict(self) -> StateDict:
        return {"importance": self.importance, "sampled": self.sampled}

    def load_state_dict(self, state: StateDict) -> None:
        self.importance, self.sampled = state["importance"], state["sampled"]

    def _observe_attention(self, layer: int, image: Triple, text: Triple, outputs: tuple[Tensor, Tensor]) -> None:
        """Add up what the prompt attends to."""
        if self.settings.keep != "random":
            score = measure("attention", image, text, self.padded, self.valid)
            assert score is not None
            self.importance = score if self.importance is None else self.importance + score

    def _match(self, features: Tensor) -> Match:
        """Match inside each shard of the local features `[N, D]`, each of length 1."""
        random = random_scores(self.sampled, self.site)
        by_importance = self.settings.keep == "attended" or (self.settings.keep == "both" and self._late)
        kept, place, first = [], [], 0
        for start, end in pairwise(accumulate(self.shards.sizes, initial=0)):
            shard = features[start:end]
            if by_importance:
                assert self.importance is not None
                own_kept, own_place = keep_best(shard, self.importance[start:end], self._count(len(shard)))
            else:
                own_kept, own_place = merge_most_alike(shard, random[start:end], self._count(len(shard)))
            kept.append(own_kept + start)
            place.append(own_place + first)
            first += len(own_kept)
        return Match(torch.cat(kept), torch.cat(place))

    @property
    def _merged_pieces(self) -> list[int]:
        """The tokens that stay on each rank in this step."""
        ranks = range(self.shards.world_size)
        return [sum(size - self._count(size) for size in self.shards.of_rank(rank)) for rank in ranks]

    def _count(self, size: int) -> int:
        """How many tokens of a shard are merged away in this step."""
        done = (self.sampled - 1) / max(1, self.site.num_steps - 1)
        ratio = self.settings.ratio * (1 - self.settings.decay * done)
        return min(round(ratio * size), size - 1)

    @property
    def _late(self) -> bool:
        return self.sampled > self.site.num_steps / 2


def merge_most_alike(features: Tensor, random: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Bipartite soft matching (ToMe): the `count` tokens that are most like one of a few random ones go into it.

    Returns the tokens that stay `[M]` and each token's place among them `[N]`.
    """
    size = len(features)
    num_destinations = min(max(1, round(DESTINATIONS * size)), size - count)
    order = random.argsort(descending=True)
    destinations, sources = order[:num_destinations], order[num_destinations:]
    likeness, nearest = (features[sources] @ features[destinations].T).max(-1)
    by_likeness = likeness.argsort(descending=True)
    merged, others = by_likeness[:count], by_likeness[count:]
    kept = torch.cat([destinations, sources[others]])
    place = torch.empty_like(order).scatter(0, kept, torch.arange(len(kept), device=kept.device))
    return kept, place.scatter(0, sources[merged], nearest[merged])


def keep_best(features: Tensor, importance: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Keep all but the `count` least important tokens; the token most like one that goes stands for it (AT-EDM)."""
    order = importance.argsort(descending=True)
    kept, gone = order[: len(order) - count], order[len(order) - count :]
    place = torch.empty_like(order).scatter(0, kept, torch.arange(len(kept), device=kept.device))
    return kept, place.scatter(0, gone, (features[gone] @ features[kept].T).argmax(-1))
