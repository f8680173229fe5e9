"""Attention kernels: which `auto` takes on which GPU, and what is asked for by name."""

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from parallel.kernels import KERNELS, Choice, best, installed
from parallel.local_attention import Attention, obstacle
from parallel.single import SingleGroup
from tests.parallel import work

TORCHS = [name for name, kernel in KERNELS.items() if kernel.module is None]
AMPERE, HOPPER, BLACKWELL = (8, 0), (9, 0), (10, 0)


@pytest.mark.parametrize(
    ("capability", "packages", "one_gpu", "ulysses", "ring"),
    [
        (HOPPER, [], "cudnn", "cudnn", "cudnn"),
        (HOPPER, ["flash3"], "flash3", "flash3", "flash3"),
        (HOPPER, ["flash3", "flash4"], "flash4", "flash4", "flash3"),
        (BLACKWELL, ["flash3"], "cudnn", "cudnn", "cudnn"),  # FlashAttention 3 is for Hopper alone
        (BLACKWELL, ["flash4"], "flash4", "flash4", "cudnn"),  # of which Ring gets no log-sum-exp
        (AMPERE, ["flash3", "flash4"], "flash", "flash", "flash"),
        ((7, 0), [], "sdpa", "efficient", "efficient"),
        (None, ["flash3"], "sdpa", "flash", "flash"),
    ],
)
def test_auto_takes_the_fastest_exact_kernel_and_one_gpu_the_same_as_ulysses(
    capability, packages, one_gpu, ulysses, ring
):
    has = [*TORCHS, *packages, "sage", "flash3-fp8"]

    def chosen(**calls: bool) -> str:
        return best(capability, half=True, has=has, **calls)

    assert chosen(by_xfuser=False, ring=False) == one_gpu
    assert chosen(by_xfuser=True, ring=False) == ulysses
    assert chosen(by_xfuser=True, ring=True) == ring


def test_float32_on_a_gpu_takes_what_can_do_it():
    options = {"half": False, "ring": False, "has": list(KERNELS)}
    assert [best(HOPPER, by_xfuser=by_xfuser, **options) for by_xfuser in (False, True)] == ["sdpa", "efficient"]


def test_on_cuda_the_kernel_goes_by_the_device_and_the_number_format(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: HOPPER)
    with FakeTensorMode():
        half, single = (torch.empty(1, 2, 8, 64, device="cuda", dtype=each) for each in (torch.bfloat16, torch.float32))
        for attention in (Attention(), Attention(by_xfuser=True), Attention(by_xfuser=True, ring=True)):
            assert attention.kernel(half) in ("cudnn", "flash3", "flash4")
        assert Attention(by_xfuser=True, ring=True).kernel(single) == "efficient"


@pytest.mark.parametrize("name", [name for name, kernel in KERNELS.items() if kernel.on_cpu])
def test_kernels_of_the_cpu_attend_as_any(name):
    outputs = SingleGroup(Choice(name=name)).attend(*work.qkv(work.TOKENS, 0), *work.qkv(work.TEXT, 1))
    for output, expected in zip(outputs, work.dense_attention(), strict=True):
        torch.testing.assert_close(output, expected, rtol=0, atol=1e-5)
    assert obstacle(Choice(name=name), torch.device("cpu"), torch.float32) is None


def test_what_stands_in_a_kernels_way_is_one_sentence():
    cpu = torch.device("cpu")
    assert "cudnn attention does not work on cpu in bfloat16: " in str(
        obstacle(Choice(name="cudnn"), cpu, torch.bfloat16)
    )
    for name in set(KERNELS) - set(installed()):
        found = str(obstacle(Choice(name=name), cpu, torch.bfloat16))
        assert found.startswith(f"{name} attention needs ") and found.endswith("which is not installed")


def test_low_precision_is_never_chosen_by_itself_and_gives_way_at_both_ends():
    choice = Choice.read("sage:2")
    attention, states = Attention(choice), torch.empty(1, 2, 8, 64)
    used = []
    for step in range(1, 8):
        attention.at_step(step, 7 - step)
        used.append(attention.kernel(states))
    assert used == ["sdpa", "sdpa", "sage", "sage", "sage", "sdpa", "sdpa"]
    always = Attention(Choice.read("sage"))
    always.at_step(1, 0)
    assert always.kernel(states) == "sage"


def test_a_group_tells_its_kernel_of_the_steps():
    group = SingleGroup(Choice.read("flash3-fp8:1"))
    group.mark("dense", 1, 2)
    assert group.attention.kernels.exactly
    group.mark("decision", 2)
    group.mark("sparse", 2, 1)
    assert not group.attention.kernels.exactly


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("fast", "unknown attention kernel fast; known: auto, flash"),
        ("cudnn:3", "cudnn attention is exact in every step; leave out :3"),
        ("auto:3", "auto attention is exact in every step"),
        ("sage:0", "whole number above 0, as in sage:5"),
        ("sage:x", "whole number above 0, as in sage:5"),
    ],
)
def test_what_is_no_kernel_is_refused(text, complaint):
    with pytest.raises(ValueError, match=complaint):
        Choice.read(text)


@pytest.mark.parametrize("name", [name for name, kernel in KERNELS.items() if not kernel.merges])
def test_ring_refuses_a_kernel_that_gives_no_log_sum_exp(name):
    with pytest.raises(ValueError, match=f"{name} attention does not give the log-sum-exp"):
        Attention(Choice(name=name), by_xfuser=True, ring=True)
