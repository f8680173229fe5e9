"""Keepers of warm gangs as drivers see them: their handles, found by their names."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Generic, cast

import ray
from ray import ObjectRef
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.util import list_named_actors
from ray.util.placement_group import PlacementGroup
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from cluster.keeper import Keeper, Look, Roster, Turn
from cluster.placement import GangSpec
from cluster.remote import RemoteWorker, StartWorker
from cluster.session import Item, Result
from cluster.waiting import arrived

NAMESPACE = "resca-warm"
LOOK_TIMEOUT_S = 5.0


class RemoteKeeper(Generic[Item, Result]):
    """A `Keeper`, by its name; each method is that of the keeper, and returns at once."""

    def __init__(self, name: str, actor: ActorHandle):
        self.name, self._actor = name, actor

    @classmethod
    def start(cls, name: str, claim_s: float) -> "RemoteKeeper[Item, Result]":
        """On the driver's node if it can be, as that is the least likely to be given up."""
        place = NodeAffinitySchedulingStrategy(node_id=ray.get_runtime_context().get_node_id(), soft=True)
        keeper = ray.remote(Keeper).options(  # pyright: ignore[reportAttributeAccessIssue]
            name=name, namespace=NAMESPACE, lifetime="detached", num_cpus=0, scheduling_strategy=place
        )
        return cls(name, cast(ActorHandle, keeper.remote(claim_s)))

    @classmethod
    def named(cls, name: str) -> "RemoteKeeper[Item, Result] | None":
        try:
            return cls(name, ray.get_actor(name, namespace=NAMESPACE))
        except ValueError:  # It has just ended.
            return None

    def reserve(self, spec: GangSpec, avoid: Iterable[str]) -> ObjectRef[PlacementGroup]:
        return self._call("reserve", spec, list(avoid))

    def start_workers(
        self, spec: GangSpec, start_worker: StartWorker[Item, Result]
    ) -> ObjectRef[list[RemoteWorker[Item, Result]]]:
        return self._call("start_workers", spec, start_worker)

    def settle(self, roster: Roster[Item, Result], batch: str, lease_s: float) -> ObjectRef[None]:
        return self._call("settle", roster, batch, lease_s)

    def take(self, batch: str, lease_s: float, alone: bool) -> ObjectRef[Roster[Item, Result] | None]:
        return self._call("take", batch, lease_s, alone)

    def turn(self, batch: str, priority: float, lease_s: float) -> ObjectRef[Turn | None]:
        return self._call("turn", batch, priority, lease_s)

    def renew(self, batch: str, lease_s: float) -> ObjectRef[None]:
        return self._call("renew", batch, lease_s)

    def rest(self, batch: str, lease_s: float) -> ObjectRef[None]:
        return self._call("rest", batch, lease_s)

    def leave(self, batch: str, lease_s: float) -> ObjectRef[None]:
        return self._call("leave", batch, lease_s)

    def look(self) -> ObjectRef[Look]:
        return self._call("look")

    def end(self, batch: str) -> ObjectRef[None]:
        return self._call("end", batch)

    def end_if_idle(self) -> ObjectRef[None]:
        return self._call("end_if_idle")

    def kill(self) -> None:
        ray.kill(self._actor)

    def _call(self, method: str, *args: object) -> ObjectRef:
        return getattr(self._actor, method).remote(*args)


def keepers(key: str | None = None) -> list[RemoteKeeper]:
    """Of all warm gangs of the cluster, or of those that have loaded this."""
    actors = cast("list[dict[str, str]]", list_named_actors(all_namespaces=True))
    named = [each["name"] for each in actors if each["namespace"] == NAMESPACE]
    found = [RemoteKeeper.named(name) for name in named if key is None or name.startswith(f"{key}/")]
    return [keeper for keeper in found if keeper is not None]


def look_at(found: Sequence[RemoteKeeper]) -> dict[RemoteKeeper, Look]:
    """What those say of their gangs that answer."""
    asked = {keeper: keeper.look() for keeper in found}
    there = arrived(list(asked.values()), LOOK_TIMEOUT_S) if asked else []
    looks: dict[RemoteKeeper, Look] = {}
    for keeper, ref in asked.items():
        with suppress(RayError):
            if ref in there:
                looks[keeper] = ray.get(ref)
    return looks


def end_idlest(found: Sequence[RemoteKeeper]) -> None:
    """Ends the one of those gangs that has been idle for the longest, if any is idle."""
    looks = look_at(found)
    idle = [keeper for keeper in looks if looks[keeper].is_ready and not looks[keeper].num_batches]
    if idle:
        max(idle, key=lambda keeper: looks[keeper].idle_s).end_if_idle()
