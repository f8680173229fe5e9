"""Scores of tokens, by which sparse steps choose."""

from types import SimpleNamespace

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.testing import assert_close

from caching.attention import Router
from caching.features.selection import own_attention, random_scores
from caching.group import LocalGroup
from caching.site import Site


def site_on(device, num_tokens=12):
    rotary = (torch.empty(num_tokens, 2, device=device), torch.empty(num_tokens, 2, device=device))
    return Site(group=LocalGroup(), router=Router(), num_tokens=num_tokens, num_steps=7, rotary=rotary)


def test_scores_depend_on_the_step_alone():
    first, again, other = (random_scores(step, site_on("cpu")) for step in (1, 1, 2))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert random_scores(1, site_on("meta")).shape == first.shape  # which has no generator


def test_scores_are_drawn_where_the_tokens_are(monkeypatch):
    """On a GPU nothing is drawn by the host and copied; a build of torch for CPUs has no generator for it."""
    asked, made = [], []
    monkeypatch.setattr(torch, "Generator", lambda device: asked.append(device.type) or generator)
    generator = SimpleNamespace(manual_seed=lambda seed: None)
    draw = torch.rand

    def rand(*size, device, generator):
        made.append(device.type)
        return draw(*size, device=device)

    monkeypatch.setattr(torch, "rand", rand)
    with FakeTensorMode():
        scores = random_scores(1, site_on("cuda"))
    assert (asked, made, scores.device.type) == (["cuda"], ["cuda"], "cuda")


def test_without_a_text_tokens_are_scored_by_the_attention_of_their_own_shard():
    generator = torch.Generator().manual_seed(0)
    query, key = (torch.randn(1, 2, 7, 4, generator=generator) for _ in range(2))
    padded, valid = torch.tensor([[0, 1, 2, 3], [4, 5, 6, 6]]), torch.tensor([[True] * 4, [True] * 3 + [False]])
    scores = own_attention(query, key, padded, valid)
    for part in (slice(0, 4), slice(4, 7)):
        attention = (query[0, :, part] @ key[0, :, part].transpose(1, 2) / 2).softmax(-1)
        assert_close(scores[part], attention.mean((0, 1)))
