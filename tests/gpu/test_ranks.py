"""Real ranks joined by NCCL, a GPU each: as many as there are, up to 8."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from parallel.group import SequenceGroup
from parallel.layout import Layout, divisors

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(280)]

HEADS, TOKENS, TEXT, WIDTH = 24, 1203, 37, 64  # tokens that no number of ranks above 1 divides but 3


def states(dtype: torch.dtype, device: torch.device) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Queries, keys and values of the image and of the text, the same on every rank."""
    generator = torch.Generator().manual_seed(0)
    made = [
        [torch.randn(1, HEADS, length, WIDTH, generator=generator).to(device, dtype) for _ in range(3)]
        for length in (TOKENS, TEXT)
    ]
    return made[0], made[1]


def attend_on_a_rank(rank: int, layout: Layout, rendezvous: Path, outputs: Path) -> None:
    """One all-to-all, and joint attention through xfuser, which each rank writes down."""
    device = torch.device("cuda", rank)
    torch.cuda.set_device(device)
    dist.init_process_group(
        "nccl", init_method=f"file://{rendezvous}", rank=rank, world_size=layout.world_size, device_id=device
    )
    sent = torch.arange(layout.world_size, device=device) + 100 * rank
    received = torch.empty_like(sent)
    dist.all_to_all_single(received, sent)
    assert received.tolist() == [100 * other + rank for other in range(layout.world_size)]
    group = SequenceGroup(layout)
    assert dist.distributed_c10d._get_default_group().bound_device_id == device
    base, left = divmod(TOKENS, layout.world_size)
    group.divide([base + (each < left) for each in range(layout.world_size)])
    image, text = states(torch.bfloat16, device)
    pieces = [each.transpose(1, 2).flatten(2) for each in image]
    own = [group.shard(each).unflatten(2, (HEADS, WIDTH)).transpose(1, 2) for each in pieces]
    attended, attended_text = group.attend(*own, *text)
    torch.save((attended.float().cpu(), attended_text.float().cpu()), outputs / f"{rank}.pt")
    group.close()
    dist.destroy_process_group()


def layouts() -> list[Layout]:
    """All Ulysses, all Ring, and half and half, of the GPUs that are there."""
    num = max(degree for degree in (1, 2, 4, 6, 8) if degree <= max(1, torch.cuda.device_count()))
    degrees = [degree for degree in divisors(num) if HEADS % degree == 0]
    return [Layout(ulysses=degree, ring=num // degree) for degree in degrees]


def test_attention_of_all_gpus_equals_that_of_one(device, tmp_path):
    image, text = states(torch.float32, device)
    joint = [torch.cat(pair, dim=2) for pair in zip(image, text, strict=True)]
    expected = torch.nn.functional.scaled_dot_product_attention(*joint).cpu()
    for number, layout in enumerate(layouts()):
        outputs = tmp_path / str(number)
        outputs.mkdir()
        arguments = (layout, outputs / "rendezvous", outputs)
        mp.spawn(attend_on_a_rank, args=arguments, nprocs=layout.world_size)
        by_rank = [torch.load(outputs / f"{rank}.pt", weights_only=True) for rank in range(layout.world_size)]
        whole = torch.cat([attended for attended, _ in by_rank], dim=2)
        torch.testing.assert_close(whole, expected[:, :, :TOKENS], rtol=0, atol=0.03)
        for _, attended_text in by_rank:
            torch.testing.assert_close(attended_text, expected[:, :, TOKENS:], rtol=0, atol=0.03)


@pytest.mark.parametrize("name", ["SDPA_FLASH", "SDPA_EFFICIENT", "CUDNN", "FLASH_3", "FLASH_4"])
def test_a_kernel_gives_ring_what_it_merges_by(device, name):
    """Attention to two halves of the keys, merged by log-sum-exp as Ring does, is attention to all of them."""
    from xfuser.core.distributed.attention_backend import ATTENTION_FUNCTION_REGISTRY, AttentionBackendType

    from parallel.attention import _taught

    kernel = _taught(ATTENTION_FUNCTION_REGISTRY[AttentionBackendType[name]])
    query, key, value = states(torch.bfloat16, device)[0]
    halves = zip(key.chunk(2, dim=2), value.chunk(2, dim=2), strict=True)
    try:
        parts = [kernel(query, *half, dropout_p=0.0, is_causal=False) for half in halves]
    except (ImportError, NameError, RuntimeError) as reason:
        pytest.skip(f"{name} is not to be had here: {reason}")
    weights = torch.stack([log_sum_exp.float() for _, log_sum_exp in parts]).softmax(0)
    merged = sum(weight[..., None] * part.float() for weight, (part, _) in zip(weights, parts, strict=True))
    exact = torch.nn.functional.scaled_dot_product_attention(query.float(), key.float(), value.float())
    torch.testing.assert_close(merged, exact, rtol=0, atol=0.03)
