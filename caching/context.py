"""What proxies attend to in a sparse step: keys and values of the last dense steps, extrapolated.

Runs of neighbouring tokens share one mean key and value, so the context stays small; each counts with the logarithm of
its size, as if its members were there. A dense step records it layer by layer and gathers it over the ranks once.

Legend: B batch, H heads, D head width, N local tokens, M runs of all ranks, L text tokens, K local proxies.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from caching.group import Group
from caching.shards import ShardMap

Layer = tuple[Tensor, Tensor, Tensor, Tensor]  # keys and values [B, H, M, D], text keys and text values [B, H, L, D]


class Context:
    """Keys and values of every layer at the last two dense steps."""

    def __init__(self, shards: ShardMap, max_runs: int, device: torch.device) -> None:
        length = -(-shards.num_tokens // max_runs)
        self.run_of, self.run_sizes = shards.segments(length, device)
        self.pooled = length > 1
        self.world_size = shards.world_size
        self.recording: list[Layer] = []
        self.history: list[tuple[float, list[Layer]]] = []

    def record(self, key: Tensor, value: Tensor, text_key: Tensor, text_value: Tensor) -> None:
        """Add a layer's keys and values, image `[B, H, N, D]` and text `[B, H, L, D]`, in layer order."""
        self.recording.append((self._pool(key), self._pool(value), text_key, text_value))

    def commit(self, time: float, group: Group) -> None:
        """End a dense step: gather what the ranks recorded, in one collective."""
        layers, self.recording = self.recording, []
        if self.world_size > 1:
            images = group.gather(torch.stack([torch.stack([key, value]) for key, value, *_ in layers]), dim=4)
            layers = [(image[0], image[1], *text) for image, (_, _, *text) in zip(images, layers, strict=True)]
        self.history = [*self.history, (time, layers)][-2:]

    def at(self, layer: int, time: float) -> Layer:
        """A layer's keys and values at `time`, linear in time."""
        new_time, new = self.history[-1]
        if len(self.history) == 1:
            return new[layer]
        old_time, old = self.history[0]
        weight = (time - old_time) / (new_time - old_time)
        key, value, text_key, text_value = (
            torch.lerp(before, after, weight) for before, after in zip(old[layer], new[layer], strict=True)
        )
        return key, value, text_key, text_value

    def bias(self, proxies: Tensor, shard_of: Tensor, rank: int) -> Tensor:
        """What is added to attention logits `[K + 1, M + L + K]`; the last row is for a text token.

        A proxy sees its shard's proxies fresh, and every run without them.
        """
        num_text = self.history[-1][1][0][2].shape[2]
        sizes = self.run_sizes.repeat(self.world_size)
        run = self.run_of[proxies] + rank * len(self.run_sizes)
        same_shard = shard_of[:, None] == shard_of[None]
        fresh_in_run = same_shard.float() @ F.one_hot(run, len(sizes)).float()
        others = torch.cat([sizes - fresh_in_run, sizes[None]]).log()
        text = others.new_zeros(len(others), num_text)
        fresh = F.pad(same_shard.float(), (0, 0, 0, 1)).log()
        return torch.cat([others, text, fresh], dim=1)

    @property
    def cache_bytes(self) -> int:
        return sum(tensor.nbytes for _, layers in self.history for layer in layers for tensor in layer)

    def _pool(self, states: Tensor) -> Tensor:
        """The mean over each run, `[B, H, N, D]` to `[B, H, runs, D]`."""
        if not self.pooled:
            return states
        sums = states.new_zeros(*states.shape[:2], len(self.run_sizes), states.shape[3])
        return sums.index_add(2, self.run_of, states) / self.run_sizes[:, None].to(states.dtype)
