"""Padded text tokens are dropped, so that attention needs no mask."""

import torch
from torch import Tensor

from caching.models.adapter import Inputs


class TextTrimmer:
    """Drops padding from a transformer's inputs; counts once for each mask, because a GPU's host waits for that."""

    def __init__(self) -> None:
        self.mask: Tensor | None = None  # the last one
        self.num_text = 0  # that it keeps

    def trim(self, inputs: Inputs) -> Inputs:
        """The inputs without padded text tokens. ValueError if the prompts of a batch differ in length."""
        mask = inputs.get("encoder_attention_mask")
        if mask is None or mask.device.type == "meta":
            return inputs
        if mask is not self.mask:
            self.mask, self.num_text = mask, count_text(mask)
        text, kept = inputs["encoder_hidden_states"][:, : self.num_text], mask[:, : self.num_text]
        return {**inputs, "encoder_hidden_states": text, "encoder_attention_mask": torch.ones_like(kept)}


def count_text(mask: Tensor) -> int:
    """The tokens that a mask `[B, L]` keeps; at least one. ValueError if its rows differ."""
    if not is_even(mask):
        raise ValueError("prompts of one batch must have the same number of tokens; render them one by one")
    return max(1, int(mask[0].sum(dtype=torch.int32)))  # bfloat16 cannot count beyond 256


def is_even(mask: Tensor | None) -> bool:
    """Whether the rows of a mask `[B, L]` keep the same tokens; without a mask they keep all."""
    return mask is None or len(mask) == 1 or torch.equal(mask, mask[:1].expand_as(mask))
