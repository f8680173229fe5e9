"""Which nodes gangs stand on, by the arithmetic of placement: those that are reserved together share a node."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from cluster.placement import GangSpec, room


class Places:
    """What is free on each node. A gang takes as few nodes as it can, and of those that do the fullest."""

    def __init__(self, spec: GangSpec, nodes: Sequence[Mapping[str, float]]):
        group = replace(spec, world_size=spec.together)
        self._groups = spec.world_size // spec.together  # of a gang
        self._all = [room(group, [node]) for node in nodes]  # groups that each node has room for
        self._used = [0] * len(nodes)
        self._is_lost = [False] * len(nodes)

    def take(self) -> tuple[int, ...] | None:
        """The node of each group of a gang, in order; None where there is no place."""
        free = {node: groups for node in range(len(self._all)) if (groups := self._free(node))}
        enough = [node for node, groups in free.items() if groups >= self._groups]
        if enough:
            nodes = (min(enough, key=lambda node: free[node]),) * self._groups
        else:
            fullest = sorted(free, key=lambda node: -free[node])
            nodes = tuple(node for node in fullest for _ in range(free[node]))[: self._groups]
            if len(nodes) < self._groups:
                return None
        for node in nodes:
            self._used[node] += 1
        return nodes

    def give_back(self, nodes: Sequence[int]) -> None:
        for node in nodes:
            self._used[node] -= 1

    def lose(self, node: int) -> None:
        """It takes nothing until it is mended."""
        self._is_lost[node] = True

    def mend(self, node: int) -> None:
        self._is_lost[node] = False

    def _free(self, node: int) -> int:
        return 0 if self._is_lost[node] else self._all[node] - self._used[node]
