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
from caching.state_dict import StateDict

Pair = tuple[Tensor, Tensor]  # keys and values [B, H, tokens, D]


class Context:
    """Keys and values of every layer at the last two dense steps, in buffers that last one generation."""

    def __init__(self, shards: ShardMap, max_runs: int, device: torch.device) -> None:
        length = -(-shards.num_tokens // max_runs)
        self.run_of, runs = shards.segments(length, device)
        self.all_run_sizes = torch.cat(runs)
        self.first_run = sum(map(len, runs[: shards.rank]))
        self.num_runs = list(map(len, runs))
        self.length, self.shard_sizes = length, shards.sizes
        self.recording: list[tuple[Tensor, Pair]] = []  # image and text of each layer, until they are gathered
        self.older: list[Tensor] = []  # of each layer [2 (keys, values), B, H, M + L, D]
        self.newest: list[Tensor] = []
        self.times: list[float] = []
        self.num_kept = self.num_text = 0
        self.seen: Tensor | None = None  # [2, B, H, M + L + K, D], what the proxies of the present layer attend to

    def record(self, key: Tensor, value: Tensor, text_key: Tensor, text_value: Tensor) -> None:
        """Add a layer's keys and values, image `[B, H, N, D]` and text `[B, H, L, D]`, in layer order.

        What waits to be gathered is copied: compiled blocks use their memory again.
        """
        image, text = (self._pool(key), self._pool(value)), (text_key, text_value)
        if len(self.num_runs) > 1:
            self.recording.append((torch.stack(image), (text_key.clone(), text_value.clone())))
        else:
            self._keep(image, text)

    def commit(self, time: float, group: Group) -> None:
        """End a dense step: gather what the ranks recorded, in one collective."""
        if self.recording:
            own = torch.stack([image for image, _ in self.recording])
            images = group.gather(own, self.num_runs, dim=4)
            for image, (_, text) in zip(images, self.recording, strict=True):
                self._keep((image[0], image[1]), text)
        self.older, self.newest = self.newest, self.older
        self.times = [*self.times, time][-2:]
        self.recording, self.num_kept = [], 0

    @property
    def extrapolates(self) -> bool:
        """Whether two dense steps are known."""
        return len(self.times) == 2

    def at(self, layer: int, time: float, key: Tensor, value: Tensor) -> Pair:
        """What a layer's proxies attend to: what was recorded, linear in time, then their own `[B, H, K, D]`."""
        new = self.newest[layer]
        length = new.shape[3]
        if self.seen is None or self.seen.shape[3] != length + key.shape[2]:
            self.seen = new.new_empty(*new.shape[:3], length + key.shape[2], new.shape[4])
        recorded, fresh = self.seen[:, :, :, :length], self.seen[:, :, :, length:]
        weight = (time - self.times[0]) / (self.times[1] - self.times[0])
        torch.lerp(self.older[layer], new, weight, out=recorded)
        fresh[0], fresh[1] = key, value
        return self.seen[0], self.seen[1]

    def bias(self, proxies: Tensor, shard_of: Tensor) -> Tensor:
        """What is added to attention logits `[K + 1, M + L + K]`; the last row is for a text token.

        A proxy sees its shard's proxies fresh, and every run without them.
        """
        sizes, run = self.all_run_sizes, self.run_of[proxies] + self.first_run
        same_shard = shard_of[:, None] == shard_of[None]
        fresh_in_run = same_shard.float() @ F.one_hot(run, len(sizes)).float()
        others = torch.cat([sizes - fresh_in_run, sizes[None]]).log()
        text = others.new_zeros(len(others), self.num_text)
        fresh = F.pad(same_shard.float(), (0, 0, 0, 1)).log()
        return torch.cat([others, text, fresh], dim=1)

    @property
    def cache_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in [*self.older, *self.newest])

    def state_dict(self) -> StateDict:
        """After a dense step's end, when nothing waits to be gathered."""
        return {"older": self.older, "newest": self.newest, "times": self.times, "num_text": self.num_text}

    def load_state_dict(self, state: StateDict) -> None:
        self.older, self.newest = state["older"], state["newest"]
        self.times, self.num_text = state["times"], state["num_text"]

    def _keep(self, image: Pair, text: Pair) -> None:
        """Write the next layer over what was recorded two dense steps ago."""
        shape = (2, *image[0].shape[:2], image[0].shape[2] + text[0].shape[2], image[0].shape[3])
        if self.num_kept == len(self.older):
            self.older.append(image[0].new_empty(shape))
        for target, *parts in zip(self.older[self.num_kept], image, text, strict=True):
            torch.cat(parts, dim=2, out=target)
        self.num_kept, self.num_text = self.num_kept + 1, text[0].shape[2]

    def _pool(self, states: Tensor) -> Tensor:
        """The mean over each run, `[B, H, N, D]` to `[B, H, runs, D]`; summed in float32, in one order always."""
        if self.length == 1:
            return states
        means = [mean for shard in states.split(self.shard_sizes, dim=2) for mean in _means(shard, self.length)]
        return torch.cat(means, dim=2).to(states.dtype)


def _means(shard: Tensor, length: int) -> list[Tensor]:
    """Of the whole runs of a shard `[B, H, n, D]`, and of what is left at its end, if anything is; in float32."""
    num_whole, left = divmod(shard.shape[2], length)
    whole, rest = shard.split([num_whole * length, left], dim=2)
    means = [whole.unflatten(2, (num_whole, length)).mean(3, dtype=torch.float32)]
    return [*means, rest.mean(2, keepdim=True, dtype=torch.float32)] if left else means
