"""HiDream-I1 for the caching engine, composed of the modules of `HiDreamImageTransformer2DModel`.

Its text has three parts: T5, the last layer of Llama and, for each block, a layer of Llama of its own, which the block
does not hand on. Feed-forwards are mixtures of experts. The pipeline doubles the batch for guidance, the negative
prompt first, and negates what the model gives.

Legend: B batch, N tokens, P values of a patch, D hidden width, L text tokens of one part, C channels of a text.
"""

from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from diffusers import HiDreamImageTransformer2DModel
from diffusers.models.transformers.transformer_hidream_image import MOEFeedForwardSwiGLU, apply_rope
from torch import Tensor, nn

from caching.attention import Router, Triple
from caching.models.adapter import AttentionModule, FeedForward, Inputs
from caching.models.patches import ImagePatches, channels_first
from caching.models.state import Grid, Rotary, State

LLAMA = "encoder_hidden_states_llama3"


class HiDreamAdapter(ImagePatches):
    """Runs the model's own modules on patches.

    A state's text holds all parts, `[B, (2 + blocks) L, D]`; of some tokens' pass a single token stands for it.
    """

    batch_dims = MappingProxyType({LLAMA: 1})
    output_sign = -1

    def __init__(self, transformer: HiDreamImageTransformer2DModel) -> None:
        self.transformer: Any = transformer
        side = self.transformer.config.patch_size
        self.patch = (1, side, side)
        self.num_double = len(self.transformer.double_stream_blocks)
        self.block_list = [*self.transformer.double_stream_blocks, *self.transformer.single_stream_blocks]
        if next(transformer.parameters()).is_meta:
            for module in transformer.modules():
                if isinstance(module, MOEFeedForwardSwiGLU):
                    vars(module)["moe_infer"] = partial(share_evenly, module)

    @property
    def velocity_values(self) -> int:
        """As many as go in."""
        return self.patch_values

    @property
    def attentions(self) -> list[AttentionModule]:
        """The attention modules where tokens meet, in the order in which they run."""
        return [each.block.attn1 for each in self.block_list]

    @property
    def cross_attentions(self) -> list[nn.Module]:
        """Modules where tokens look at nothing but the text: there are none."""
        return []

    @property
    def called_alone(self) -> list[nn.Module]:
        """Modules of the first block that `modulated` calls."""
        block = self.block_list[0].block
        return [block.norm1_i, block.adaLN_modulation]

    def processor(self, router: Router) -> "HiDreamProcessor":
        """What the engine puts into `attentions`."""
        return HiDreamProcessor(router)

    def parts(self, index: int) -> list[nn.Module]:
        """The attention and feed-forward modules of a block."""
        block = self.block_list[index].block
        return [block.attn1, block.ff_i, *([block.ff_t] if index < self.num_double else [])]

    def feed_forwards(self, index: int) -> list[FeedForward]:
        """None of two linear layers: they are gated, and experts choose."""
        return []

    def text_for_some(self, text: Tensor) -> Tensor:
        """The text `[B, L, D]` that a pass of some of the tokens needs: one token, as the blocks want one."""
        return text[:, :1]

    def example_inputs(self, num_text_tokens: int, device: torch.device) -> dict[str, Tensor]:
        """Inputs of the right shapes, to count with: so many tokens in each part of the text."""
        config = self.transformer.config
        t5, llama = config.caption_channels
        return {
            "timesteps": torch.ones(1, device=device),
            "encoder_hidden_states_t5": torch.ones(1, num_text_tokens, t5, device=device),
            LLAMA: torch.ones(max(config.llama_layers) + 1, 1, num_text_tokens, llama, device=device),
            "pooled_embeds": torch.ones(1, config.text_emb_dim, device=device),
        }

    def rotary(self, grid: Grid, device: torch.device) -> Rotary:
        """The turn of every token, as the model embeds places, `[N, turns x 4]`, and nothing."""
        _, height, width = grid
        if height != width:
            raise ValueError("HiDream pads what is not square with tokens that others attend to; make square images")
        rows, columns = (torch.arange(size, device=device, dtype=torch.float32) for size in (height, width))
        places = torch.cartesian_prod(rows, columns)
        turns = self.transformer.pe_embedder(torch.cat([places.new_zeros(len(places), 1), places], dim=1)[None])
        table = turns.flatten(0, 2).flatten(1)
        return table, table[:, :0]

    def embed(
        self,
        patches: Tensor,
        rotary: Rotary,
        inputs: Inputs,
        *,
        text: Tensor | None = None,
        grid: Grid | None = None,
    ) -> State:
        """The state before the first block; `text`, if given, stands for the embedded texts, which are then skipped."""
        model = self.transformer
        weight = model.x_embedder.proj.weight
        values = patches.unflatten(2, (model.config.in_channels, -1)).transpose(2, 3).flatten(2)
        tokens = model.x_embedder(values.to(weight.dtype))
        time = model.t_embedder(inputs["timesteps"], tokens.dtype) + model.p_embedder(inputs["pooled_embeds"])
        return State(tokens, self._text(inputs) if text is None else text, time[:, None], rotary)

    def run(self, index: int, state: State) -> State:
        """Run one block on the tokens of `state`."""
        block, length = self.block_list[index], state.text.shape[1] // (2 + self.num_blocks)
        kept, layers = state.text.split([max(1, 2 * length), self.num_blocks * length], dim=1)
        own = layers[:, index * length : (index + 1) * length]
        turns = state.rotary[0].unflatten(1, (-1, 2, 2))[None, :, None]
        given = dict(hidden_states_masks=None, temb=state.modulation[:, 0], image_rotary_emb=turns)
        if index < self.num_double:
            text = torch.cat([kept, own], dim=1)
            tokens, text = block(hidden_states=state.tokens, encoder_hidden_states=text, **given)
        else:
            joined = block(hidden_states=torch.cat([state.tokens, kept, own], dim=1), **given)
            tokens, text = joined.tensor_split([state.tokens.shape[1]], dim=1)
        return replace(state, tokens=tokens, text=torch.cat([text[:, : kept.shape[1]], layers], dim=1))

    def modulated(self, state: State) -> Tensor:
        """The first block's input `[B, N, D]` as its attention sees it, what TeaCache watches."""
        block = self.block_list[0].block
        shift, scale = block.adaLN_modulation(state.modulation[:, 0])[:, None].chunk(12, dim=-1)[:2]
        return block.norm1_i(state.tokens) * (1 + scale) + shift

    def head(self, state: State) -> Tensor:
        """The negative velocity as patches `[B, N, P]`."""
        values = self.transformer.final_layer(state.tokens, state.modulation[:, 0])
        return channels_first(values, self.transformer.out_channels)

    def _text(self, inputs: Inputs) -> Tensor:
        """T5, the last layer of Llama, and that of each block, embedded and joined."""
        model, t5, llama = self.transformer, inputs["encoder_hidden_states_t5"], inputs[LLAMA]
        if t5.shape[1] != llama.shape[2]:
            raise ValueError(f"T5's text must be as long as Llama's, not {t5.shape[1]} and {llama.shape[2]} tokens")
        chosen = model.config.llama_layers[: self.num_blocks]
        layers = [model.caption_projection[block](llama[layer]) for block, layer in enumerate(chosen)]
        return torch.cat([model.caption_projection[-1](t5), layers[-1], *layers], dim=1)


class HiDreamProcessor:
    """A processor for HiDream's attention, which names its layers in its own way, and puts the image first."""

    def __init__(self, router: Router) -> None:
        self.router = router

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        hidden_states_masks: None = None,
        encoder_hidden_states: Tensor | None = None,
        image_rotary_emb: Tensor | None = None,
    ) -> tuple[Tensor, Tensor] | Tensor:
        """Attention outputs after the output projection, of image and text, or of both in one sequence."""
        assert image_rotary_emb is not None
        size = image_rotary_emb.shape[1]
        states = _project(attn, hidden_states, "")
        if attn.single:
            image, text = zip(*(state.tensor_split([size], dim=1) for state in states), strict=True)
        else:
            image, text = states, _project(attn, encoder_hidden_states, "_t")
        query, key = _turned(image[0], image[1], image_rotary_emb)
        routed = self.router.route(*(each.transpose(1, 2) for each in (query, key, image[2], *text)))
        image_out, text_out = (output.transpose(1, 2).flatten(2) for output in routed)
        if attn.single:
            return attn.to_out(torch.cat([image_out, text_out], dim=1))
        return attn.to_out(image_out), attn.to_out_t(text_out)


def _project(attn: Any, states: Tensor | None, suffix: str) -> Triple:
    """Query, key and value, each `[B, N, H, head width]`."""
    layer = attn.get_submodule
    query = layer(f"q_rms_norm{suffix}")(layer(f"to_q{suffix}")(states))
    key = layer(f"k_rms_norm{suffix}")(layer(f"to_k{suffix}")(states))
    value = layer(f"to_v{suffix}")(states)
    query, key, value = (each.to(value.dtype).unflatten(2, (attn.heads, -1)) for each in (query, key, value))
    return query, key, value


def _turned(query: Tensor, key: Tensor, turns: Tensor) -> tuple[Tensor, Tensor]:
    """By places; where these are fewer than pairs of values, those in front."""
    width = 2 * turns.shape[-3]
    if width == query.shape[-1]:
        return apply_rope(query, key, turns)
    front = apply_rope(query[..., :width], key[..., :width], turns)
    back = (query[..., width:], key[..., width:])
    return torch.cat([front[0], back[0]], dim=-1), torch.cat([front[1], back[1]], dim=-1)


def share_evenly(mixture: Any, tokens: Tensor, chosen: Tensor, weights: Tensor) -> Tensor:
    """As many tokens `[N, D]` for each expert, in place of those that a router would choose, which needs values."""
    copies = tokens.repeat(mixture.num_activated_experts, 1)
    parts = zip(mixture.experts, copies.chunk(len(mixture.experts)), strict=False)
    return torch.cat([expert(part) for expert, part in parts]).unflatten(0, (-1, len(tokens))).sum(0)
