"""Sparse steps that compute the columns that change most: Chipmunk, without its kernels.

A column is a key for a chunk of queries, or a neuron of a feed-forward layer. A dense step finds the heaviest of both
and keeps what the others give; a sparse step computes the heavy ones anew and adds the rest as it was.

Legend: B batch, H heads, D head width, N image tokens, L text tokens, T = N + L, K columns of a chunk.
"""

from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from caching.attention import Triple
from caching.features.stand_ins import Forward, StandIns
from caching.models.adapter import Adapter, run_blocks
from caching.recipe.recipe import Recipe
from caching.recipe.tokens import SparseColumns
from caching.site import Site
from caching.state_dict import StateDict
from caching.step import Step

MAX_LOGITS = 2**26  # that are held at a time, 268 MB of them, however much memory is free


@dataclass
class Chunks:
    """What `c` chunks of at most `m` queries each keep of a dense step."""

    columns: Tensor  # the heaviest keys of each chunk [B, H, c, K]
    rest: Tensor  # attention to all other keys [B, H, c, m, D]
    weight: Tensor  # the log-sum-exp of their logits [B, H, c, m], in float32

    @classmethod
    def split(cls, query: Tensor, key: Tensor, value: Tensor, length: int, count: int) -> "Chunks":
        """Find the `count` heaviest keys for each `length` queries of `[B, H, n, D]` among `[B, H, T, D]`."""
        queries = _chunked(query, length)
        logits = _logits(queries.flatten(2, 3), key).unflatten(2, (-1, length))
        real = torch.arange(logits.shape[2] * length, device=query.device) < query.shape[2]
        columns = (logits.softmax(-1) * real.view(-1, length, 1)).sum(3).topk(count, dim=-1).indices
        others = logits.scatter(4, columns[:, :, :, None].expand(-1, -1, -1, length, -1), float("-inf"))
        rest = others.softmax(-1).nan_to_num().to(value.dtype).flatten(2, 3) @ value
        return cls(columns=columns, rest=rest.unflatten(2, (-1, length)), weight=others.logsumexp(-1))

    def attend(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attention `[B, H, n, D]`: fresh to the heaviest keys, as it was to the others."""
        queries = _chunked(query, self.weight.shape[3])
        keys, values = (self._heaviest(states) for states in (key, value))
        logits = _logits(queries, keys)
        fresh, weight = logits.softmax(-1).to(values.dtype) @ values, logits.logsumexp(-1)
        total = torch.logaddexp(weight, self.weight)
        output = fresh * (weight - total).exp()[..., None] + self.rest * (self.weight - total).exp()[..., None]
        return output.flatten(2, 3)[:, :, : query.shape[2]].to(query.dtype)

    def _heaviest(self, states: Tensor) -> Tensor:
        """Of keys or values `[B, H, T, D]` those of each chunk's columns `[B, H, c, K, D]`."""
        index = self.columns[..., None].expand(-1, -1, -1, -1, states.shape[-1])
        return states[:, :, None].expand(-1, -1, index.shape[2], -1, -1).gather(3, index)

    @property
    def nbytes(self) -> int:
        return self.columns.nbytes + self.rest.nbytes + self.weight.nbytes

    def state_dict(self) -> StateDict:
        return {"columns": self.columns, "rest": self.rest, "weight": self.weight}


def _logits(queries: Tensor, keys: Tensor) -> Tensor:
    """Of queries `[..., n, D]` and keys `[..., k, D]` the logits `[..., n, k]`, in float32.

    In half precision they would be rounded so that attention is off by percents. On CUDA the product of matrices in
    half precision can be had in float32, many times as fast as that of matrices in float32.
    """
    keys = keys.transpose(-1, -2)
    if queries.is_cuda and queries.dtype != torch.float32:
        pairs = torch.bmm(queries.flatten(0, -3), keys.flatten(0, -3), out_dtype=torch.float32)
        products = pairs.unflatten(0, queries.shape[:-2])
    else:
        products = queries.float() @ keys.float()
    return products / sqrt(queries.shape[-1])


def held_at_once(num_heads: int, num_keys: int, length: int) -> tuple[int, int]:
    """Of how many heads, and how many queries of each, MAX_LOGITS are the logits; at least a chunk of one head."""
    num_chunks = MAX_LOGITS // (num_keys * length)
    if num_chunks >= num_heads:
        return num_heads, length * (num_chunks // num_heads)
    return max(1, num_chunks), length


def _chunked(query: Tensor, length: int) -> Tensor:
    """Queries `[B, H, n, D]` as chunks `[B, H, c, length, D]`, the last one filled up with zeros."""
    return F.pad(query, (0, 0, 0, -query.shape[2] % length)).unflatten(2, (-1, length))


@dataclass
class Mode:
    """What the present step does with every layer, for hooks: they outlive the feature, which they must not keep."""

    computes: bool = True
    keep: bool = False


class ColumnFeature:
    """Attention and feed-forward layers by columns; embedding, projections and head stay fresh."""

    follower = None

    def __init__(self, recipe: Recipe, adapter: Adapter, site: Site) -> None:
        assert isinstance(recipe.tokens, SparseColumns)
        if site.group.sequence_size > 1:
            raise ValueError(f"chipmunk works on one rank, not on {site.group.sequence_size}")
        self.settings, self.adapter, self.site = recipe.tokens, adapter, site
        self.mode = Mode()
        self.layers: list[list[Chunks]] = []
        self.heads = self.span = 0  # that are computed at a time: heads, and queries of each in whole chunks
        self.hooks: list[Up | Down] = []
        self.stand_ins = StandIns()
        for index in range(adapter.num_blocks):
            for layers in adapter.feed_forwards(index):
                up = Up(self.mode, max(1, round((1 - self.settings.ratio) * layers.up.out_features)))
                self._hook(layers.up, up)
                self._hook(layers.down, Down(self.mode, up, layers.leading))

    def dense(self, step: Step, *, keep: bool) -> Tensor:
        self.mode.computes, self.mode.keep, self.layers = True, keep, []
        self.stand_ins.take_turns()
        state = step.before
        self.site.attend_to_all(state.text.shape[1], self._observe_attention)
        return step.velocity(run_blocks(self.adapter, state))

    def sparse(self, step: Step) -> Tensor:
        """The velocity `[B, N, P]` from the heavy columns of every layer."""
        self.mode.computes = False
        self.stand_ins.take_turns()
        state = step.before
        self.site.router.send(self._attend, state.text.shape[1])
        return self.adapter.head(run_blocks(self.adapter, state))

    def detach(self) -> None:
        self.stand_ins.leave()
        for hook in self.hooks:  # they form cycles, which would keep what they hold until a collection
            hook.forget()
        self.hooks, self.layers = [], []

    @property
    def cache_bytes(self) -> int:
        attention = sum(chunk.nbytes for layer in self.layers for chunk in layer)
        return attention + sum(hook.cache_bytes for hook in self.hooks)

    def state_dict(self) -> StateDict:
        layers = [[chunks.state_dict() for chunks in layer] for layer in self.layers]
        hooks = [hook.state_dict() for hook in self.hooks]
        return {"layers": layers, "heads": self.heads, "span": self.span, "hooks": hooks}

    def load_state_dict(self, state: StateDict) -> None:
        self.layers = [[Chunks(**chunks) for chunks in layer] for layer in state["layers"]]
        self.heads, self.span = state["heads"], state["span"]
        for hook, of_hook in zip(self.hooks, state["hooks"], strict=True):
            hook.load_state_dict(of_hook)

    def _observe_attention(self, layer: int, image: Triple, text: Triple, outputs: tuple[Tensor, Tensor]) -> None:
        """Split a layer's keys into heavy ones and others, for each chunk of queries."""
        if self.mode.keep:
            query, key, value = (torch.cat(pair, dim=2) for pair in zip(image, text, strict=True))
            length, count = self.settings.chunk, max(1, round((1 - self.settings.ratio) * key.shape[2]))
            whole = query.shape[1], query.shape[2]
            self.heads, self.span = whole if query.is_meta else held_at_once(whole[0], key.shape[2], length)
            parts = self._parts(query, key, value)
            self.layers.append([Chunks.split(*part, length, count) for of_heads in parts for part in of_heads])

    def _attend(self, layer: int, *states: Tensor) -> tuple[Tensor, Tensor]:
        query, key, value = (torch.cat(pair, dim=2) for pair in zip(states[:3], states[3:], strict=True))
        kept = iter(self.layers[layer])
        parts = self._parts(query, key, value)
        by_heads = [torch.cat([next(kept).attend(*part) for part in of_heads], dim=2) for of_heads in parts]
        output = torch.cat(by_heads, dim=1)
        return output[:, :, : states[0].shape[2]], output[:, :, states[0].shape[2] :]

    def _parts(self, *states: Tensor) -> list[list[Triple]]:
        """Queries, keys and values of some heads and a span of queries: for all heads by turns, all spans."""
        by_heads = zip(*(each.split(self.heads, dim=1) for each in states), strict=True)
        return [[(part, key, value) for part in query.split(self.span, dim=2)] for query, key, value in by_heads]

    def _hook(self, module: nn.Module, hook: "Up | Down") -> None:
        self.stand_ins.add(module, hook)
        self.hooks.append(hook)


class Up:
    """The first layer of a feed-forward: in sparse steps only the neurons that changed most between dense steps."""

    def __init__(self, mode: Mode, count: int) -> None:
        self.mode, self.count = mode, count
        self.output: Tensor | None = None
        self.columns: Tensor | None = None

    def answer(self, forward: Forward, module: nn.Linear, states: Tensor) -> Tensor:
        if self.mode.computes:
            output: Tensor = forward(states)
            if self.mode.keep:
                change = output if self.output is None else output - self.output
                change = change.abs().sum((0, 1), dtype=torch.float32)  # beyond the range of float16
                self.columns = change.topk(self.count).indices
                self.output = output
            return output
        assert self.output is not None and self.columns is not None
        fresh = F.linear(states, module.weight[self.columns], module.bias[self.columns])
        self.output = self.output.index_copy(2, self.columns, fresh)
        return self.output

    def forget(self) -> None:
        """Let go of the last output."""
        self.output = self.columns = None

    def state_dict(self) -> StateDict:
        return {"output": self.output, "columns": self.columns}

    def load_state_dict(self, state: StateDict) -> None:
        self.output, self.columns = state["output"], state["columns"]

    @property
    def cache_bytes(self) -> int:
        return 0 if self.output is None else self.output.nbytes


class Down:
    """The second layer: what the neurons that were computed add to its last output.

    Args:
        leading: inputs that come before the neurons and are always fresh (attention, in single-stream blocks).
    """

    def __init__(self, mode: Mode, up: Up, leading: int) -> None:
        self.mode, self.up, self.leading = mode, up, leading
        self.input: Tensor | None = None
        self.output: Tensor | None = None

    def answer(self, forward: Forward, module: nn.Linear, states: Tensor) -> Tensor:
        if self.mode.computes:
            output: Tensor = forward(states)
            if self.mode.keep:
                self.input, self.output = states, output
            return output
        assert self.input is not None and self.output is not None and self.up.columns is not None
        leading = torch.arange(self.leading, device=states.device)
        columns = torch.cat([leading, self.leading + self.up.columns])
        change = states.index_select(2, columns) - self.input.index_select(2, columns)
        self.input, self.output = states, self.output + F.linear(change, module.weight[:, columns])
        return self.output

    def forget(self) -> None:
        """Let go of the last input and output."""
        self.input = self.output = None

    def state_dict(self) -> StateDict:
        return {"input": self.input, "output": self.output}

    def load_state_dict(self, state: StateDict) -> None:
        self.input, self.output = state["input"], state["output"]

    @property
    def cache_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in (self.input, self.output) if tensor is not None)
