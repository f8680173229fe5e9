"""Padded text tokens are dropped, and images that are none, so that attention needs no mask.

Legend: B batch, L text tokens.
"""

import torch
from torch import Tensor

from caching.models.adapter import Inputs

# Text that a mask belongs to, and how many tokens of it stay where the mask keeps none.
STREAMS = {
    ("encoder_hidden_states", "encoder_attention_mask"): 1,
    ("encoder_hidden_states_2", "encoder_attention_mask_2"): 0,
}
IMAGE = "image_embeds"


class TextTrimmer:
    """Drops padding from a transformer's inputs; looks once at each mask, because a GPU's host waits for that."""

    def __init__(self) -> None:
        self.seen: dict[str, tuple[Tensor, Tensor]] = {}  # the last mask of each text, and the tokens that it keeps
        self.image: tuple[Tensor, bool] | None = None  # the last one, and whether it is one

    def trim(self, inputs: Inputs) -> Inputs:
        """The inputs without padded text tokens. ValueError if the prompts of a batch differ in length."""
        trimmed = dict(inputs)
        for (name, mask_name), least in STREAMS.items():
            mask = inputs.get(mask_name)
            if mask is not None and not mask.is_meta:
                kept = self._kept(mask_name, mask, least)
                text = inputs[name].index_select(1, kept)
                trimmed |= {name: text, mask_name: mask.new_ones(text.shape[:2])}
        image = inputs.get(IMAGE)
        if image is not None and not image.is_meta and not self._is_image(image):
            trimmed[IMAGE] = image[:, :0]
        return trimmed

    def _kept(self, name: str, mask: Tensor, least: int) -> Tensor:
        """The places of the tokens that a mask `[B, L]` keeps, in their order."""
        if name not in self.seen or self.seen[name][0] is not mask:
            count = count_text(mask, least)
            self.seen[name] = mask, mask[0].argsort(descending=True, stable=True)[:count]
        return self.seen[name][1]

    def _is_image(self, image: Tensor) -> bool:
        """Whether an embedded image is more than zeros, which stand for none."""
        if self.image is None or self.image[0] is not image:
            self.image = image, has_values(image)
        return self.image[1]


def count_text(mask: Tensor, least: int = 1) -> int:
    """The tokens that a mask `[B, L]` keeps; at least so many. ValueError if its rows differ."""
    if not _has_equal_rows(mask):
        raise ValueError("prompts of one batch must have the same number of tokens; render them one by one")
    return max(least, int(mask[0].sum(dtype=torch.int32)))  # bfloat16 cannot count beyond 256


def has_values(image: Tensor) -> bool:
    """Whether anything is not zero."""
    return bool(image.any())


def is_even(inputs: Inputs) -> bool:
    """Whether the prompts of a batch keep the same tokens of their texts; without a mask they keep all."""
    masks = (inputs.get(mask_name) for _, mask_name in STREAMS)
    return all(mask is None or _has_equal_rows(mask) for mask in masks)


def _has_equal_rows(mask: Tensor) -> bool:
    return len(mask) == 1 or torch.equal(mask, mask[:1].expand_as(mask))
