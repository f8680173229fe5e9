"""ResCa: proxies chosen at dense steps, truly denoised at sparse steps, and what they teach the other tokens.

Legend: B batch (1), N local tokens, K local proxies, C channels of what is cached, D hidden width.
"""

from typing import Any

import torch
from torch import Tensor

from caching.features.output import OutputFeature, run_blocks
from caching.medoids import k_medoids
from caching.proxies.context import Context
from caching.proxies.simulation import ProxySimulation
from caching.proxies.trajectory import Trajectory
from caching.recipe.recipe import ProxyTaylor
from caching.recipe.tokens import TrajectoryMedoids
from caching.site import Site

GAIN_MEMORY = 0.5  # how much an earlier dense step counts when the gain is fitted
FIRST_ITERATIONS, NEXT_ITERATIONS = 5, 2  # of k-medoids, which begins with the medoids of the dense step before


class Proxies:
    """The proxies of one rank during one generation."""

    def __init__(
        self,
        adapter: Any,
        feature: OutputFeature,
        site: Site,
        tokens: TrajectoryMedoids,
        predictor: ProxyTaylor,
    ) -> None:
        group, device = site.group, site.device
        self.adapter, self.feature, self.settings, self.predictor = adapter, feature, tokens, predictor
        self.group, self.router = group, site.router
        self.shards = site.shard_map(tokens.shards)
        self.padded, self.valid = self.shards.padded(device)
        self.clusters_per_shard = tokens.clusters // tokens.shards
        if self.clusters_per_shard > self.shards.smallest:
            raise ValueError(
                f"{tokens.clusters} clusters are too many for {site.num_tokens} tokens in {tokens.shards} logical "
                f"shards; at most {self.shards.smallest * tokens.shards}"
            )
        self.rotary = site.rotary
        self.context = Context(self.shards, tokens.context, device)
        self.trajectory = Trajectory(smoothing=tokens.smoothing, sketch=tokens.sketch, history=tokens.history)
        self.evidence = torch.zeros(2, device=device)
        self.medoids: Tensor | None = None
        self.truth: Tensor | None = None  # the proxies' computed values [B, K, C], if the last step computed them
        self.simulation: ProxySimulation | None = None

    def learn(self, time: float, truth: Tensor) -> None:
        """At a dense step: fit the gain that would have brought the extrapolation nearest to the truth `[B, N, C]`."""
        assert self.simulation is not None
        error = (truth - self.feature.taylor.predict(time)).float()
        correction = self.simulation.correction(time).float()
        products = torch.stack([(error * correction).sum(), correction.square().sum()])
        self.evidence = GAIN_MEMORY * self.evidence + self.group.total(products)

    @property
    def gain(self) -> Tensor | float:
        if self.predictor.gain is not None:
            return self.predictor.gain
        return (self.evidence[0] / self.evidence[1].clamp_min(1e-12)).clamp(0, 1)

    def choose(self, time: float, tokens: Tensor, text: Tensor) -> None:
        """End a dense step: cluster by trajectory (TETC) and begin a stage of simulated denoising (PDDS).

        Not after the first one: there is no trajectory yet, and proxies would attend to a context that stands still.

        Args:
            tokens: hidden states after the last block `[1, N, D]`; `text`: the refined prompt `[1, L, D]`.
        """
        self.context.commit(time, self.group)
        self.trajectory.observe(tokens[0])
        if not self.context.extrapolates:
            return
        padded, valid = self.padded, self.valid
        iterations = FIRST_ITERATIONS if self.medoids is None else NEXT_ITERATIONS
        medoids, clusters = k_medoids(
            self.trajectory.vectors()[padded],
            valid,
            self.clusters_per_shard,
            start=self.medoids,
            num_iterations=iterations,
        )
        self.medoids = medoids
        self.index = padded.gather(1, medoids).flatten()
        first = torch.arange(len(medoids), device=tokens.device)[:, None] * self.clusters_per_shard
        self.proxy_of = torch.zeros(tokens.shape[1], dtype=torch.long, device=tokens.device)
        self.proxy_of = self.proxy_of.scatter_reduce(
            0, padded.flatten(), ((clusters + first) * valid).flatten(), "amax"
        )
        shard_of = torch.arange(len(medoids), device=tokens.device).repeat_interleave(self.clusters_per_shard)
        self.bias = self.context.bias(self.index, shard_of).to(tokens.dtype)
        self.since_dense = 0
        self.text = self.adapter.text_for_some(text)
        self.simulation = ProxySimulation(
            self.feature.taylor.derivatives,
            time,
            self.index,
            self.proxy_of,
            self.gain,
            self.predictor.update == "implicit",
        )

    def advance(self, time: float, patches: Tensor, inputs: dict) -> Tensor:
        """A sparse step: the simulated value of every local token `[B, N, C]`."""
        assert self.simulation is not None
        self.since_dense += 1
        self.truth = None
        if self.since_dense % self.settings.every == 0:
            self.truth = self._denoise(time, patches, inputs)
        return self.simulation.advance(time, self.truth)

    @property
    def cache_bytes(self) -> int:
        own = sum(tensor.nbytes for tensor in self.simulation.lesson) if self.simulation else 0
        return own + self.context.cache_bytes + sum(feature.nbytes for feature in self.trajectory.features)

    def _denoise(self, time: float, patches: Tensor, inputs: dict) -> Tensor:
        """Run the proxies through the model's own blocks: their true value `[B, K, C]`."""

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor, text_query: Tensor, *_: Tensor):
            keys, values = self.context.at(layer, time, key, value)
            queries = torch.cat([query, text_query], dim=2)
            bias = self.bias[: queries.shape[2]]  # no row for a text token in models whose text asks for nothing
            output = torch.nn.functional.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
            return output[:, :, : query.shape[2]], output[:, :, query.shape[2] :]

        self.router.send(attend, self.text.shape[1])
        rotary = (self.rotary[0][self.index], self.rotary[1][self.index])
        state = self.adapter.embed(patches[:, self.index], rotary, text=self.text, **inputs)
        after = run_blocks(self.adapter, state)
        return self.feature.value(state, after, lambda: self.adapter.head(after).to(patches.dtype))
