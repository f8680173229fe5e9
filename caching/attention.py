"""Attention processors: projections here, attention wherever the engine routes it.

Legend: B batch, N image tokens, L text tokens, H heads, D head width, C channels.
"""

from collections.abc import Callable
from typing import Any, Protocol
from weakref import WeakValueDictionary

import torch
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor, nn

Attend = Callable[[int, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
Triple = tuple[Tensor, Tensor, Tensor]

MAX_TURNED_AT_ONCE = 1024  # tokens: few cost kernel launches, many the memory of copies in float32


class Router:
    """Where the processor sends layer, query, key, value, text query, text key and text value, `[B, H, N or L, D]`.

    Args:
        opaque: hide what happens from `torch.compile`, which would otherwise compile each destination anew.
    """

    attend: Attend
    num_text: int

    def __init__(self, *, opaque: bool = False) -> None:
        self.opaque, self.layer = opaque, 0
        ROUTERS[id(self)] = self
        self.handle = torch.tensor(id(self))  # a tensor, so that compiled blocks serve any router

    def send(self, attend: Attend, num_text: int) -> None:
        """Send the attention of the blocks, from the first on, to `attend`; the text has `num_text` tokens."""
        self.attend, self.num_text, self.layer = attend, num_text, 0

    def forget(self) -> None:
        """Let go of where attention was sent, and of what is kept there."""
        self.send(_nowhere, 0)

    def route(self, *states: Tensor) -> tuple[Tensor, Tensor]:
        """The next layer's attention outputs, image `[B, H, N, D]` and text `[B, H, L, D]`."""
        return torch.ops.resca.attend(self.handle, *states) if self.opaque else self.pass_on(*states)

    def pass_on(self, *states: Tensor) -> tuple[Tensor, Tensor]:
        """Attend now; layers are counted as they run."""
        layer, self.layer = self.layer, self.layer + 1
        return self.attend(layer, *states)


def _nowhere(*_: object) -> tuple[Tensor, Tensor]:
    raise RuntimeError("attention outside of a generation: nobody has said where it goes")


ROUTERS: WeakValueDictionary[int, Router] = WeakValueDictionary()


@torch.library.custom_op("resca::attend", mutates_args=())
def _attend_opaquely(
    router: Tensor, query: Tensor, key: Tensor, value: Tensor, text_query: Tensor, text_key: Tensor, text_value: Tensor
) -> tuple[Tensor, Tensor]:
    outputs = ROUTERS[int(router)].pass_on(query, key, value, text_query, text_key, text_value)
    image, text = (output.clone(memory_format=torch.contiguous_format) for output in outputs)
    return image, text


@_attend_opaquely.register_fake
def _(
    router: Tensor, query: Tensor, key: Tensor, value: Tensor, text_query: Tensor, *_: Tensor
) -> tuple[Tensor, Tensor]:
    return query.new_empty(query.shape), text_query.new_empty(text_query.shape)


class JointModule(Protocol):
    """What the processor uses of a joint attention module of `diffusers`; layers for the text only where it has any."""

    heads: int
    to_q: nn.Module
    to_k: nn.Module
    to_v: nn.Module
    norm_q: nn.Module | None
    norm_k: nn.Module | None
    add_q_proj: nn.Module | None  # the query of the text; None where all share the layers above
    add_k_proj: nn.Module
    add_v_proj: nn.Module
    norm_added_q: nn.Module | None
    norm_added_k: nn.Module | None
    to_out: nn.ModuleList
    to_add_out: nn.Module


class JointProcessor:
    """A `diffusers` attention processor for double-stream and single-stream blocks alike."""

    def __init__(self, router: Router) -> None:
        self.router = router

    def __call__(
        self,
        attn: JointModule,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor] | Tensor:
        """Attention outputs `[B, N, C]` and `[B, L, C]`, after the output projections where the block has them.

        Without `encoder_hidden_states` one sequence comes, and goes, with the text first.
        """
        if encoder_hidden_states is None:
            image, text = _project_sequence(attn, hidden_states, self.router.num_text, text_first=True)
        elif (text_query := attn.add_q_proj) is None:
            joined = torch.cat([hidden_states, encoder_hidden_states], dim=1)
            image, text = _project_sequence(attn, joined, encoder_hidden_states.shape[1], text_first=False)
        else:
            image, text = _project_streams(attn, text_query, hidden_states, encoder_hidden_states)
        image = rotate(image, image_rotary_emb)
        image_out, text_out = self.router.route(*image, *text)
        image_out, text_out = (out.transpose(1, 2).flatten(2) for out in (image_out, text_out))
        if encoder_hidden_states is None:
            return torch.cat([text_out, image_out], dim=1)
        if getattr(attn, "to_out", None) is not None:
            image_out = attn.to_out[1](attn.to_out[0](image_out))
        if getattr(attn, "to_add_out", None) is not None:
            text_out = attn.to_add_out(text_out)
        return image_out, text_out


class SelfProcessor:
    """A `diffusers` attention processor for modules in which image tokens meet without any text."""

    def __init__(self, router: Router) -> None:
        self.router = router

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Attention outputs `[B, N, C]`, after the output projection; norms come before heads are told apart."""
        query, key = (
            layer(hidden_states) if norm is None else norm(layer(hidden_states))
            for layer, norm in ((attn.to_q, attn.norm_q), (attn.to_k, attn.norm_k))
        )
        states = (query, key, attn.to_v(hidden_states))
        query, key, value = (state.unflatten(2, (attn.heads, -1)).transpose(1, 2) for state in states)
        image = rotate((query, key, value), rotary_emb)
        nothing = query[:, :, :0]
        output, _ = self.router.route(*image, nothing, nothing, nothing)
        return attn.to_out[1](attn.to_out[0](output.transpose(1, 2).flatten(2)))


def _project_streams(attn: JointModule, text_query: nn.Module, image: Tensor, text: Tensor) -> tuple[Triple, Triple]:
    """Image and text through their own layers (double-stream blocks)."""
    layers, norms = (attn.to_q, attn.to_k, attn.to_v), (attn.norm_q, attn.norm_k)
    text_layers = (text_query, attn.add_k_proj, attn.add_v_proj)
    text_norms = (attn.norm_added_q, attn.norm_added_k)
    return _project(attn, layers, norms, image), _project(attn, text_layers, text_norms, text)


def _project_sequence(attn: JointModule, states: Tensor, num_text: int, text_first: bool) -> tuple[Triple, Triple]:
    """Image and text, one sequence `[B, N + L, C]`, through the layers that they share (single-stream blocks)."""
    layers, norms = (attn.to_q, attn.to_k, attn.to_v), (attn.norm_q, attn.norm_k)
    query, key, value = _project(attn, layers, norms, states)
    split = num_text if text_first else states.shape[1] - num_text
    first = (query[:, :, :split], key[:, :, :split], value[:, :, :split])
    second = (query[:, :, split:], key[:, :, split:], value[:, :, split:])
    return (second, first) if text_first else (first, second)


def _project(
    attn: JointModule, layers: tuple[nn.Module, ...], norms: tuple[nn.Module | None, nn.Module | None], states: Tensor
) -> Triple:
    query, key, value = (layer(states).unflatten(2, (attn.heads, -1)).transpose(1, 2) for layer in layers)
    query_norm, key_norm = norms
    query = query_norm(query) if query_norm is not None else query
    key = key_norm(key) if key_norm is not None else key
    return query, key, value


def rotate(image: Triple, rotary: tuple[Tensor, Tensor] | None) -> Triple:
    """Query and key `[B, H, N, D]` turned by their tokens' places, cosines and sines `[N, D]`; the value as it is."""
    query, key, value = image
    if rotary is None:
        return image
    turn: Any = apply_rotary_emb  # its annotations do not admit the pair of tables that it documents
    if query.shape[2] <= MAX_TURNED_AT_ONCE:
        query, key = turn(torch.cat([query, key]), rotary).chunk(2)
        return query, key, value
    return turn(query, rotary), turn(key, rotary), value
