"""ResCa: proxies chosen at dense steps, truly denoised at sparse steps, and how the other tokens follow them.

Legend: B batch (1), N local tokens, K local proxies, C channels of what is cached, D hidden width, S local shards.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from caching.attention import Triple
from caching.features.output import OutputFeature
from caching.medoids import k_medoids
from caching.models.adapter import Adapter, run_blocks
from caching.models.levels import with_levels
from caching.proxies.context import Context
from caching.proxies.simulation import ProxySimulation
from caching.proxies.trajectory import Trajectory
from caching.recipe.recipe import ProxyTaylor
from caching.recipe.tokens import TrajectoryMedoids
from caching.site import Site
from caching.state_dict import StateDict
from caching.step import Step

GAIN_MEMORY = 0.5  # how much an earlier dense step counts when the gain is fitted
FIRST_ITERATIONS, NEXT_ITERATIONS = 5, 2  # of k-medoids, which begins with the medoids of the dense step before


@dataclass(kw_only=True)
class Stage:
    """The sparse steps after one dense step, for which proxies were chosen there."""

    medoids: Tensor  # of each shard, places in it [S, K / S]
    bias: Tensor  # added to their attention logits [K + 1, keys]
    text: Tensor  # what they need of it [1, L, D]
    simulation: ProxySimulation
    num_sparse: int = 0

    @property
    def index(self) -> Tensor:
        """The proxies among the local tokens `[K]`."""
        return self.simulation.index

    def state_dict(self) -> StateDict:
        own = {"medoids": self.medoids, "bias": self.bias, "text": self.text}
        return {**own, "simulation": self.simulation.state_dict(), "num_sparse": self.num_sparse}

    @classmethod
    def of_state_dict(cls, state: StateDict) -> "Stage":
        own = {name: value for name, value in state.items() if name != "simulation"}
        return cls(**own, simulation=ProxySimulation(**state["simulation"]))


class Proxies:
    """The proxies of one rank during one generation.

    Args:
        feature: what is cached of all tokens.
    """

    def __init__(
        self,
        adapter: Adapter,
        feature: OutputFeature,
        site: Site,
        tokens: TrajectoryMedoids,
        predictor: ProxyTaylor,
    ) -> None:
        self.adapter, self.feature, self.settings, self.predictor, self.site = adapter, feature, tokens, predictor, site
        self.shards = site.shard_map(tokens.shards)
        self.padded, self.valid = self.shards.padded(site.device)
        self.clusters_per_shard = tokens.clusters // tokens.shards
        if self.clusters_per_shard > self.shards.smallest:
            raise ValueError(
                f"{tokens.clusters} clusters are too many for {site.num_tokens} tokens in {tokens.shards} logical "
                f"shards; at most {self.shards.smallest * tokens.shards}"
            )
        self.context = Context(self.shards, tokens.context, site.device)
        self.trajectory = Trajectory(
            self.padded, self.valid, smoothing=tokens.smoothing, sketch=tokens.sketch, history=tokens.history
        )
        self.evidence = torch.zeros(2, device=site.device)
        self.stage: Stage | None = None  # None before the second dense step

    def observe_layer(self, layer: int, image: Triple, text: Triple, outputs: tuple[Tensor, Tensor]) -> None:
        """Record a layer's keys and values in a dense step."""
        self.context.record(*image[1:], *text[1:])

    def fit_gain(self, simulation: ProxySimulation, time: float, truth: Tensor) -> None:
        """At a dense step: what gain would have brought the extrapolation nearest to the truth `[B, N, C]`?

        Nothing is done, and nothing exchanged, where the gain is given.
        """
        if self.predictor.gain is not None:
            return
        error = (truth - self.feature.taylor.predict(time)).float()
        correction = simulation.correction(time).float()
        products = torch.stack([(error * correction).sum(), correction.square().sum()])
        self.evidence = GAIN_MEMORY * self.evidence + self.site.group.total(products)

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
        self.context.commit(time, self.site.group)
        self.trajectory.observe(tokens[0])
        if not self.context.extrapolates:
            return
        medoids, clusters = self._cluster()
        index = self.padded.gather(1, medoids).flatten()
        shard_of = torch.arange(len(medoids), device=tokens.device).repeat_interleave(self.clusters_per_shard)
        bias = self.context.bias(index, shard_of).to(tokens.dtype)
        implicit = self.predictor.update == "implicit"
        simulation = ProxySimulation.begin(
            self.feature.taylor.derivatives, time, index, self._proxy_of(clusters), self.gain, implicit
        )
        text = self.adapter.text_for_some(text)
        self.stage = Stage(medoids=medoids, bias=bias, text=text, simulation=simulation)

    def advance(self, stage: Stage, step: Step) -> Tensor:
        """A sparse step: the simulated value of every local token `[B, N, C]`."""
        stage.num_sparse += 1
        truth = None
        if stage.num_sparse % self.settings.every == 0:
            with self.site.timed("proxies"):
                truth = self._denoise(stage, step)
        with self.site.timed("simulation"):
            return stage.simulation.advance(step.time, truth)

    @property
    def cache_bytes(self) -> int:
        own = self.stage.simulation.num_bytes if self.stage else 0
        return own + self.context.cache_bytes + self.trajectory.num_bytes

    def state_dict(self) -> StateDict:
        return {
            "context": self.context.state_dict(),
            "trajectory": self.trajectory.state_dict(),
            "evidence": self.evidence,
            "stage": self.stage.state_dict() if self.stage else None,
        }

    def load_state_dict(self, state: StateDict) -> None:
        self.context.load_state_dict(state["context"])
        self.trajectory.load_state_dict(state["trajectory"])
        self.evidence = state["evidence"]
        self.stage = Stage.of_state_dict(state["stage"]) if state["stage"] else None

    def _cluster(self) -> tuple[Tensor, Tensor]:
        """The medoids of each shard `[S, K / S]` and the cluster of each of its tokens `[S, n]`."""
        return k_medoids(
            self.trajectory.vectors(),
            self.valid,
            self.clusters_per_shard,
            start=self.stage.medoids if self.stage else None,
            num_iterations=NEXT_ITERATIONS if self.stage else FIRST_ITERATIONS,
        )

    def _proxy_of(self, clusters: Tensor) -> Tensor:
        """The place of each local token's proxy among all of this rank's `[N]`."""
        first = torch.arange(len(clusters), device=clusters.device)[:, None] * self.clusters_per_shard
        places = ((clusters + first) * self.valid).flatten()
        nowhere = torch.zeros(self.site.local_tokens, dtype=torch.long, device=clusters.device)
        return nowhere.scatter_reduce(0, self.padded.flatten(), places, "amax")

    def _denoise(self, stage: Stage, step: Step) -> Tensor:
        """Run the proxies through the model's own blocks: their true value `[B, K, C]`."""

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor, text_query: Tensor, *_: Tensor):
            keys, values = self.context.at(layer, step.time, key, value)
            queries = torch.cat([query, text_query], dim=2)
            bias = stage.bias[: queries.shape[2]]  # no row for a text token in models whose text asks for nothing
            output = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
            return output[:, :, : query.shape[2]], output[:, :, query.shape[2] :]

        self.site.router.send(attend, stage.text.shape[1])
        rotary = (self.site.rotary[0][stage.index], self.site.rotary[1][stage.index])
        inputs = with_levels(step.inputs, lambda levels: levels[:, stage.index])
        patches = step.patches[:, stage.index]
        state = self.adapter.embed(patches, rotary, inputs, text=stage.text)
        after = run_blocks(self.adapter, state)
        return self.feature.value(state, after, lambda: step.in_sigma(step.velocity(after), patches))
