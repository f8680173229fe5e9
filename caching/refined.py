"""An extrapolation of the whole model's output that is corrected: by proxies, and at dense steps.

Legend: B batch, N local tokens, P values of a patch, C channels of what is cached.
"""

from torch import Tensor

from caching.features.feature import Follower
from caching.features.output import OutputFeature
from caching.models.adapter import Adapter, run_blocks
from caching.predict.correction import Correction, Nodes
from caching.proxies.proxies import Proxies
from caching.recipe.recipe import ProxyTaylor, Recipe
from caching.recipe.tokens import TrajectoryMedoids
from caching.site import Site
from caching.state_dict import StateDict
from caching.step import Step


def is_refined(recipe: Recipe) -> bool:
    """Whether a recipe asks for any of it."""
    return recipe.predictor.correction != 0 or isinstance(recipe.tokens, TrajectoryMedoids)


class RefinedFeature:
    """What the whole model gives, extrapolated by a feature of its own, with what makes that better."""

    def __init__(self, recipe: Recipe, adapter: Adapter, site: Site, feature: OutputFeature) -> None:
        self.adapter, self.site, self.feature = adapter, site, feature
        self.nodes = Nodes(recipe.predictor.order)
        gain = 0.0 if adapter.predicts_epsilon else recipe.predictor.correction
        self.correction = Correction(self.nodes, gain)
        self.proxies = _make_proxies(recipe, adapter, site, feature)

    def dense(self, step: Step, *, keep: bool) -> Tensor:
        before, proxies = step.before, self.proxies if keep else None
        self.site.attend_to_all(before.text.shape[1], proxies.observe_layer if proxies else None)
        after = run_blocks(self.adapter, before)
        velocity = step.velocity(after)
        value = self.feature.value(before, after, lambda: step.in_sigma(velocity))
        answer = self._observe(step, velocity, value, keep)
        if proxies:
            with self.site.timed("clustering"):
                proxies.choose(step.time, after.tokens, before.text)
        return answer

    def follow(self, step: Step, velocity: Tensor, *, keep: bool) -> Tensor:
        return self._observe(step, velocity, step.in_sigma(velocity), keep)

    @property
    def follower(self) -> Follower | None:
        return self if self.proxies is None and self.feature.follower else None

    def sparse(self, step: Step) -> Tensor:
        self.correction.sparse(step.time, step.span)
        if self.proxies is None or self.proxies.stage is None:
            return self.feature.sparse(step)
        return self.feature.answer(self.proxies.advance(self.proxies.stage, step), step)

    def detach(self) -> None:
        self.feature.detach()

    @property
    def cache_bytes(self) -> int:
        return self.feature.cache_bytes + (self.proxies.cache_bytes if self.proxies else 0)

    def state_dict(self) -> StateDict:
        return {
            "feature": self.feature.state_dict(),
            "nodes": self.nodes.state_dict(),
            "correction": self.correction.state_dict(),
            "proxies": self.proxies.state_dict() if self.proxies else None,
        }

    def load_state_dict(self, state: StateDict) -> None:
        self.feature.load_state_dict(state["feature"])
        self.nodes.load_state_dict(state["nodes"])
        self.correction.load_state_dict(state["correction"])
        if self.proxies:
            self.proxies.load_state_dict(state["proxies"])

    def _observe(self, step: Step, velocity: Tensor, value: Tensor, keep: bool) -> Tensor:
        """Take the velocity of a dense step, and the value that is cached of it; gives the velocity to go on with."""
        answer = self._corrected(velocity, step)
        self.nodes.add(step.time)
        self.correction.clear()
        if keep:
            if self.proxies and self.proxies.stage:
                self.proxies.fit_gain(self.proxies.stage.simulation, step.time, value)
            self.feature.taylor.observe(step.time, value)
        return answer

    def _corrected(self, velocity: Tensor, step: Step) -> Tensor:
        """What the model has given, changed to make good what the sparse steps before this dense one did wrong."""
        if not self.correction.due:
            return velocity
        return velocity + self.correction.weight(step.time) / step.span * (velocity - self._predicted(step.time))

    def _predicted(self, time: float) -> Tensor:
        """What a sparse step would have answered in place of a dense one."""
        if self.proxies and self.proxies.stage:
            return self.proxies.stage.simulation.advance(time)
        return self.feature.taylor.predict(time)


def _make_proxies(recipe: Recipe, adapter: Adapter, site: Site, feature: OutputFeature) -> Proxies | None:
    if isinstance(recipe.tokens, TrajectoryMedoids) and isinstance(recipe.predictor, ProxyTaylor):
        return Proxies(adapter, feature, site, recipe.tokens, recipe.predictor)
    return None
