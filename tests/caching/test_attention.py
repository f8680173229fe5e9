"""Rotary embedding of queries and keys."""

import torch

from caching import attention
from caching.attention import rotate


def test_many_tokens_are_turned_like_few(monkeypatch):
    image = tuple(torch.randn(1, 2, 7, 6) for _ in range(3))
    rotary = (torch.randn(7, 6), torch.randn(7, 6))
    together = rotate(image, rotary)
    monkeypatch.setattr(attention, "MAX_TURNED_AT_ONCE", 0)
    assert all(map(torch.equal, rotate(image, rotary), together))
    assert not torch.equal(together[0], image[0]) and together[2] is image[2]
