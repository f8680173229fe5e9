"""What makes the host wait for a GPU inside the loop: the methods that decide by values, and nothing else."""

from contextlib import contextmanager

import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from caching.engine import Engine
from caching.recipe.recipe import RECIPES
from tests.caching.conftest import GRID, JOINT_RECIPES
from tests.caching.test_engine import TIMES, with_interval

WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "is_nonzero", "_unique2", "unique_dim"}


class Waits(TorchDispatchMode):
    """Notes operations whose results the host has to know before it can go on."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        by_mask = name == "index" and any(each is not None and each.dtype == torch.bool for each in args[1])
        if name in WAITS or by_mask or str(func) == "aten.repeat_interleave.Tensor":
            self.names.append(name)
        return func(*args, **(kwargs or {}))


@contextmanager
def noted(monkeypatch):
    """Also lists that are made of tensors, which are no operation; not what one_hot checks on a CPU only."""
    waits, tolist, one_hot = Waits(), torch.Tensor.tolist, F.one_hot

    def unchecked(*given):
        so_far = len(waits.names)
        encoded = one_hot(*given)
        del waits.names[so_far:]
        return encoded

    with waits, monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "tolist", lambda tensor: waits.names.append("tolist") or tolist(tensor))
        patch.setattr(F, "one_hot", unchecked)
        yield waits.names


@pytest.mark.parametrize("name", JOINT_RECIPES)
def test_only_methods_that_decide_by_values_wait_in_the_loop(transformer, sample, inputs, monkeypatch, name):
    """The first step also counts the tokens of a padded prompt."""
    decides = RECIPES[name].schedule.goes_by_values
    engine = Engine(transformer, RECIPES[name] if decides else with_interval(name, 3))
    engine.begin(GRID, TIMES)
    timesteps = [torch.tensor([1000 * time]) for time in TIMES]
    with torch.no_grad():
        engine.forward(sample, **{**inputs, "timestep": timesteps[0]})
        with noted(monkeypatch) as names:
            for timestep in timesteps[1:]:
                engine.forward(sample, **{**inputs, "timestep": timestep})
    assert bool(names) == decides, names
