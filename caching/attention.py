"""One attention processor for joint image-text blocks: projections here, attention wherever the engine routes it.

Legend: B batch, N image tokens, L text tokens, H heads, D head width, C channels.
"""

from collections.abc import Callable
from typing import Any

import torch
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor, nn

Attend = Callable[[int, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
Triple = tuple[Tensor, Tensor, Tensor]


class Router:
    """Where the processors send layer, query, key, value, text query, text key and text value, `[B, H, N or L, D]`."""

    attend: Attend
    num_text: int

    def send(self, attend: Attend, num_text: int) -> None:
        """Send the attention of the blocks that follow to `attend`; their text has `num_text` tokens."""
        self.attend, self.num_text = attend, num_text


class JointAttention:
    """A `diffusers` attention processor for double-stream and single-stream blocks alike."""

    def __init__(self, layer: int, router: Router) -> None:
        self.layer, self.router = layer, router

    def __call__(
        self,
        attn: Any,
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
        elif attn.add_q_proj is None:
            joined = torch.cat([hidden_states, encoder_hidden_states], dim=1)
            image, text = _project_sequence(attn, joined, encoder_hidden_states.shape[1], text_first=False)
        else:
            image, text = _project_streams(attn, hidden_states, encoder_hidden_states)
        image = _rotate(image, image_rotary_emb)
        image_out, text_out = self.router.attend(self.layer, *image, *text)
        image_out, text_out = (out.transpose(1, 2).flatten(2) for out in (image_out, text_out))
        if encoder_hidden_states is None:
            return torch.cat([text_out, image_out], dim=1)
        if getattr(attn, "to_out", None) is not None:
            image_out = attn.to_out[1](attn.to_out[0](image_out))
        if getattr(attn, "to_add_out", None) is not None:
            text_out = attn.to_add_out(text_out)
        return image_out, text_out


def _project_streams(attn: Any, image: Tensor, text: Tensor) -> tuple[Triple, Triple]:
    """Image and text through their own layers (double-stream blocks)."""
    layers, norms = (attn.to_q, attn.to_k, attn.to_v), (attn.norm_q, attn.norm_k)
    text_layers = (attn.add_q_proj, attn.add_k_proj, attn.add_v_proj)
    text_norms = (attn.norm_added_q, attn.norm_added_k)
    return _project(attn, layers, norms, image), _project(attn, text_layers, text_norms, text)


def _project_sequence(attn: Any, states: Tensor, num_text: int, text_first: bool) -> tuple[Triple, Triple]:
    """Image and text, one sequence `[B, N + L, C]`, through the layers that they share (single-stream blocks)."""
    layers, norms = (attn.to_q, attn.to_k, attn.to_v), (attn.norm_q, attn.norm_k)
    query, key, value = _project(attn, layers, norms, states)
    split = num_text if text_first else states.shape[1] - num_text
    first = (query[:, :, :split], key[:, :, :split], value[:, :, :split])
    second = (query[:, :, split:], key[:, :, split:], value[:, :, split:])
    return (second, first) if text_first else (first, second)


def _project(
    attn: Any, layers: tuple[nn.Module, ...], norms: tuple[nn.Module | None, nn.Module | None], states: Tensor
) -> Triple:
    query, key, value = (layer(states).unflatten(2, (attn.heads, -1)).transpose(1, 2) for layer in layers)
    query_norm, key_norm = norms
    query = query_norm(query) if query_norm is not None else query
    key = key_norm(key) if key_norm is not None else key
    return query, key, value


def _rotate(image: Triple, rotary: tuple[Tensor, Tensor] | None) -> Triple:
    query, key, value = image
    if rotary is None:
        return image
    turn: Any = apply_rotary_emb  # its annotations do not admit the pair of tables that it documents
    query, key = turn(torch.cat([query, key]), rotary).chunk(2)
    return query, key, value
