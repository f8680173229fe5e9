"""Muon on a CPU that does not compute in bfloat16."""

import torch
from torch import nn

from jobs.demo.train_transformer import NoBfloat16


def moved_by(gradient: torch.Tensor) -> torch.Tensor:
    weight = nn.Parameter(torch.zeros_like(gradient))
    weight.grad = gradient.clone()
    torch.optim.Muon([weight], lr=1.0, weight_decay=0.0).step()
    return weight.detach()


def test_it_makes_the_same_step_in_float32_to_within_what_bfloat16_rounds():
    gradient = torch.randn(8, 12, generator=torch.Generator().manual_seed(0))
    rounded = moved_by(gradient)
    with NoBfloat16():
        exact = moved_by(gradient)
    assert torch.equal(rounded, rounded.to(torch.bfloat16).float())
    assert not torch.equal(exact, exact.to(torch.bfloat16).float())
    assert (exact - rounded).norm() < 0.05 * exact.norm()


def test_what_was_given_is_not_changed_in_place():
    given = torch.ones(3)
    with NoBfloat16():
        taken = given.bfloat16()
        taken.mul_(2)
    assert taken.dtype == torch.float32
    assert torch.equal(given, torch.ones(3))
