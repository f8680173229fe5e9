"""Which tokens a sparse step computes: the scores of ToCa and DuCa (Table I), and the clusters of ClusCa.

Tokens are chosen inside logical shards, so that a seed gives the same video on any number of ranks.

Legend: B batch (1), H heads, D head width, N local tokens, L text tokens, S local shards, n tokens of the largest
shard, K tokens chosen in a shard.
"""

from math import sqrt
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from caching.attention import Triple
from caching.medoids import NEVER, k_medoids
from caching.recipe.tokens import ClusteredTokens, SelectedTokens
from caching.site import Site
from caching.state_dict import StateDict, Stateful

MAX_ASKED = 32  # tokens of a shard by whose attention its tokens are scored
BASE_PART = 0.1  # of the chosen tokens: those that the similarity score compares with


class Selector(Stateful, Protocol):
    """What decides which tokens a sparse step computes."""

    def begin_dense(self) -> None:
        """Forget what the dense step before has shown of single layers."""
        ...

    def observe_layer(self, image: Triple, text: Triple) -> None:
        """Take queries, keys and values of a layer in a dense step, image `[B, H, N, D]` and text `[B, H, L, D]`."""
        ...

    def end_dense(self, tokens: Tensor) -> None:
        """Take the features `[1, N, D]` after the last block."""
        ...

    def choose(self, step: int) -> Tensor:
        """The local tokens to compute in a sparse step `[S * K]`."""
        ...

    def renewed(self, cached: Tensor, true: Tensor, index: Tensor) -> Tensor:
        """What a block adds to each token `[B, N, D]`, given what it adds to those computed `[B, S * K, D]`."""
        ...


class ScoreSelector:
    """ToCa's and DuCa's choice, made anew in each step from scores of the last dense one."""

    def __init__(self, settings: SelectedTokens, site: Site) -> None:
        self.settings, self.site = settings, site
        self.shards = site.shard_map(settings.shards)
        self.padded, self.valid = self.shards.padded(site.device)
        self.count = max(1, round((1 - settings.ratio) * self.shards.smallest))
        self.scores: Tensor | None = None  # of local tokens [N], summed over layers
        self.features: Tensor | None = None

    def begin_dense(self) -> None:
        self.scores = None

    def observe_layer(self, image: Triple, text: Triple) -> None:
        score = measure(self.settings.score, image, text, self.padded, self.valid)
        if score is not None:
            self.scores = score if self.scores is None else self.scores + score

    def end_dense(self, tokens: Tensor) -> None:
        if self.settings.score == "similarity":
            self.features = F.normalize(tokens[0].float(), dim=-1)[self.padded]

    def choose(self, step: int) -> Tensor:
        if self.settings.score == "random":
            scores = self._random(step)
        elif self.settings.score == "similarity":
            scores = self._similarity(self._random(step))
        else:
            assert self.scores is not None
            scores = self.scores[self.padded]
        sign = 1 if self.settings.extreme == "max" else -1
        chosen = (sign * scores).masked_fill(~self.valid, NEVER).topk(self.count, dim=1).indices
        return self.padded.gather(1, chosen).flatten()

    def renewed(self, cached: Tensor, true: Tensor, index: Tensor) -> Tensor:
        """The tokens that are not computed learn nothing from the others."""
        return cached.index_copy(1, index, true)

    def state_dict(self) -> StateDict:
        return {"scores": self.scores, "features": self.features}

    def load_state_dict(self, state: StateDict) -> None:
        self.scores, self.features = state["scores"], state["features"]

    def _random(self, step: int) -> Tensor:
        """Scores `[S, n]` that depend on the step and on the token's place in the whole video alone."""
        return random_scores(step, self.site)[self.padded]

    def _similarity(self, random: Tensor) -> Tensor:
        """Each token's cosine similarity to the most similar of a few random base tokens, which are always chosen."""
        assert self.features is not None
        count = max(1, round(BASE_PART * self.count))
        bases = random.masked_fill(~self.valid, NEVER).topk(count, dim=1).indices
        chosen = self.features.gather(1, bases[..., None].expand(-1, -1, self.features.shape[-1]))
        similarity = (self.features @ chosen.transpose(1, 2)).amax(-1)
        always = 2.0 if self.settings.extreme == "max" else -2.0
        return similarity.scatter(1, bases, always)


def measure(score: str, image: Triple, text: Triple, padded: Tensor, valid: Tensor) -> Tensor | None:
    """What a layer says of each local token's importance `[N]`; None for scores that need no layer."""
    query, key, value = image
    if score == "key_norm":
        return key[0].float().norm(dim=-1).mean(0)
    if score == "value_norm":
        return value[0].float().norm(dim=-1).mean(0)
    if score != "attention":
        return None
    has_text = text[0].shape[2] > 0
    return prompt_attention(text[0], key, padded, valid) if has_text else own_attention(query, key, padded, valid)


def prompt_attention(queries: Tensor, keys: Tensor, padded: Tensor, valid: Tensor) -> Tensor:
    """How much the prompt's queries `[B, H, L, D]` attend to each key `[B, H, N, D]` inside its shard, `[N]`.

    ToCa's score by cross-attention, where cross-attention is part of a joint one.
    """
    logits = queries[0].float() @ keys[0].float().transpose(1, 2) / sqrt(keys.shape[-1])  # [H, L, N]
    attention = logits[..., padded].masked_fill(~valid, NEVER).softmax(-1).mean((0, 1))  # [S, n]
    return attention.new_zeros(keys.shape[2]).index_add(0, padded.flatten(), attention.flatten())


def own_attention(queries: Tensor, keys: Tensor, padded: Tensor, valid: Tensor) -> Tensor:
    """How much the tokens of a shard `[B, H, N, D]` attend to each key of it, `[N]`.

    ToCa's score by self-attention, for models in which no text takes part in it. Of each shard no more than `MAX_ASKED`
    tokens are asked, at even distances: of a video, all would be too many.
    """
    every = -(-padded.shape[1] // MAX_ASKED)
    asked = queries[0].float()[:, padded[:, ::every]]  # [H, S, q, D]
    logits = asked @ keys[0].float()[:, padded].transpose(2, 3) / sqrt(keys.shape[-1])  # [H, S, q, n]
    attention = logits.masked_fill(~valid[:, None], NEVER).softmax(-1) * valid[:, ::every, None]
    by_key = attention.sum(2).mean(0) / valid[:, ::every].sum(1, keepdim=True)
    return by_key.new_zeros(keys.shape[2]).index_add(0, padded.flatten(), (by_key * valid).flatten())


class ClusterSelector:
    """ClusCa's choice: clusters of the features of a dense step, and one random token of each in a sparse step."""

    def __init__(self, settings: ClusteredTokens, site: Site) -> None:
        self.settings, self.site = settings, site
        shards = site.shard_map(settings.shards)
        self.padded, self.valid = shards.padded(site.device)
        self.per_shard = settings.clusters // settings.shards
        if self.per_shard > shards.smallest:
            raise ValueError(f"{settings.clusters} clusters are too many for {site.num_tokens} tokens")
        self.clusters: Tensor | None = None  # of each token in its shard [S, n]
        self.cluster_of: Tensor | None = None  # the place of each local token's among all of this rank's [N]

    def begin_dense(self) -> None:
        """A dense step's clusters replace those before."""

    def observe_layer(self, image: Triple, text: Triple) -> None:
        """Features alone decide."""

    def end_dense(self, tokens: Tensor) -> None:
        """Cluster the features `[1, N, D]` after the last block."""
        features = F.normalize(tokens[0].float(), dim=-1)[self.padded]
        self.clusters = k_medoids(features, self.valid, self.per_shard)[1]
        first = torch.arange(len(self.clusters), device=self.clusters.device)[:, None] * self.per_shard
        places = ((self.clusters + first) * self.valid).flatten()
        self.cluster_of = self.clusters.new_zeros(self.site.local_tokens)
        self.cluster_of = self.cluster_of.scatter_reduce(0, self.padded.flatten(), places, "amax")

    def choose(self, step: int) -> Tensor:
        """One token of each cluster `[S * K]`."""
        assert self.clusters is not None
        scores = random_scores(step, self.site)[self.padded]
        member = F.one_hot(self.clusters, self.per_shard).bool() & self.valid[..., None]
        chosen = scores[..., None].expand_as(member).masked_fill(~member, NEVER).argmax(1)
        return self.padded.gather(1, chosen).flatten()

    def renewed(self, cached: Tensor, true: Tensor, index: Tensor) -> Tensor:
        """The others move a little towards the one of their cluster that was computed."""
        moved = torch.lerp(cached, true[:, self.cluster_of], self.settings.gain)
        return moved.index_copy_(1, index, true)

    def state_dict(self) -> StateDict:
        return {"clusters": self.clusters, "cluster_of": self.cluster_of}

    def load_state_dict(self, state: StateDict) -> None:
        self.clusters, self.cluster_of = state["clusters"], state["cluster_of"]


def random_scores(step: int, site: Site) -> Tensor:
    """A score of each local token `[N]`, the same wherever the token lives; drawn there, so that no host is waited for.

    The meta device has no generator: for counting, the CPU's stands in.
    """
    device = torch.device("cpu") if site.device.type == "meta" else site.device
    generator = torch.Generator(device).manual_seed(step)
    scores = torch.rand(1, site.num_tokens, 1, generator=generator, device=device).to(site.device)
    return site.group.shard(scores).flatten()
