"""A sequence group on real gloo processes does what one process with all tokens would do."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from parallel.collectives import sent_bytes
from parallel.kernels import KERNELS
from parallel.layout import Layout
from tests.parallel import work
from tests.parallel.gang import Gang

pytestmark = pytest.mark.timeout(200)

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.int64, torch.bool]


def test_attention_equals_dense_attention(gang: Gang):
    image, text = work.dense_attention()
    outputs = gang.run(work.attend)
    torch.testing.assert_close(torch.cat([piece for piece, _ in outputs], dim=2), image, rtol=0, atol=1e-5)
    for _, text_of_rank in outputs:
        torch.testing.assert_close(text_of_rank, text, rtol=0, atol=1e-5)


def test_attention_by_any_kernel_of_the_cpu_equals_dense_attention(gang: Gang):
    image, _ = work.dense_attention()
    usable = [name for name, kernel in KERNELS.items() if kernel.on_cpu and (kernel.merges or gang.layout.ring == 1)]
    assert "flash" in usable
    for name in usable:
        outputs = gang.run(work.attend_by, name)
        torch.testing.assert_close(torch.cat([piece for piece, _ in outputs], dim=2), image, rtol=0, atol=1e-5)


def uneven(gang: Gang, num_tokens: int) -> list[int]:
    """Pieces of 1, 2, 1, ... tokens; the last rank has the rest."""
    first = [1 + rank % 2 for rank in range(gang.layout.world_size - 1)]
    return [*first, num_tokens - sum(first)]


def test_attention_with_uneven_pieces_equals_dense_attention(gang: Gang):
    image, text = work.dense_attention()
    outputs = gang.run(work.attend, torch.float32, uneven(gang, work.TOKENS))
    assert len({piece.shape[2] for piece, _ in outputs}) > 1
    torch.testing.assert_close(torch.cat([piece for piece, _ in outputs], dim=2), image, rtol=0, atol=1e-5)
    for _, text_of_rank in outputs:
        torch.testing.assert_close(text_of_rank, text, rtol=0, atol=1e-5)


def test_attention_in_bfloat16_equals_dense_attention_to_its_precision(gang: Gang):
    image, text = work.dense_attention(torch.bfloat16)
    outputs = gang.run(work.attend, torch.bfloat16)
    torch.testing.assert_close(torch.cat([piece for piece, _ in outputs], dim=2), image, rtol=0, atol=0.03)
    torch.testing.assert_close(outputs[-1][1], text, rtol=0, atol=0.03)


def test_shards_are_contiguous_pieces_in_rank_order_and_gather_is_the_inverse(gang: Gang):
    tokens = torch.randn(2, 8, 3)
    sizes = uneven(gang, 8)
    pieces, gathered = zip(*gang.run(work.shard_and_gather, tokens, sizes), strict=True)
    assert [piece.shape[1] for piece in pieces] == sizes
    assert torch.equal(torch.cat(pieces, dim=1), tokens)
    assert all(torch.equal(whole, tokens) for whole in gathered)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_gather_takes_any_dtype(gang: Gang, dtype: torch.dtype):
    ranks = torch.arange(gang.layout.world_size).to(dtype)
    for gathered in gang.run(work.gather_own, (1,), dtype, 0):
        assert torch.equal(gathered, ranks)


def test_gather_joins_along_any_dim(gang: Gang):
    for gathered in gang.run(work.gather_own, (2, 3, 1), torch.float32, -1):
        assert torch.equal(gathered, torch.arange(gang.layout.world_size).float().expand(2, 3, -1))


def test_tokens_that_were_not_divided_are_refused(gang: Gang):
    ranks = gang.layout.world_size
    for message in gang.run(work.raises, work.shard_of_seven):
        assert message == f"{4 * ranks} tokens were divided among the ranks, not 7."
    for message in gang.run(work.raises, work.divide_by_nobody):
        assert message == f"{ranks} ranks need as many numbers of tokens, all positive, not {[0] * ranks}."


def test_total_sums_over_the_ranks_and_leaves_its_input_alone(gang: Gang):
    world_size = gang.layout.world_size
    for rank, (total, values) in enumerate(gang.run(work.total_of_ranks)):
        assert total.tolist() == [world_size, world_size * (world_size - 1) / 2]
        assert values.tolist() == [1, rank]


def test_broadcast_brings_what_rank_0_holds_to_every_rank(gang: Gang):
    embeds, mask = torch.randn(1, 5, 4).to(torch.bfloat16), torch.tensor([[True, False]])
    for received in gang.run(work.broadcast_from_rank_0, [embeds, mask, {"seed": 7}]):
        assert torch.equal(received[0], embeds)
        assert torch.equal(received[1], mask)
        assert received[2] == {"seed": 7}


def test_the_ledger_books_every_collective_that_reaches_torch(gang: Gang):
    for rows, details, seen in gang.run(work.booked_and_seen):
        calls, sent = Counter(), Counter()
        for collective, put_in, num_ranks in seen:
            calls[collective] += 1
            sent[collective] += sent_bytes(collective, put_in, num_ranks)
        assert {row["collective"] for row in details} == set(calls)
        for collective in calls:
            booked = [row for row in details if row["collective"] == collective]
            assert sum(row["calls"] for row in booked) == calls[collective]
            assert sum(row["bytes_sent"] for row in booked) == sent[collective]
        assert sum(row["bytes_sent"] for row in rows) == sum(sent.values())


def test_the_ledger_tells_the_kinds_of_step_apart(gang: Gang):
    for rows, _, _ in gang.run(work.booked_and_seen):
        by_step = {row["step"]: row for row in rows}
        of_xfuser = 4 * (gang.layout.ulysses > 1) + (gang.layout.ring > 1)
        in_attention = of_xfuser if gang.engine == "xfuser" else 4 + 1  # and the text's heads
        assert by_step["dense"]["calls"] == in_attention + 3
        assert (by_step["sparse"]["steps"], by_step["sparse"]["calls"], by_step["sparse"]["bytes_sent"]) == (1, 0, 0)
        assert by_step["encode"]["calls"] == 2


def test_a_group_can_be_closed_and_made_again(gang: Gang):
    image, _ = work.dense_attention()
    outputs = gang.run(work.restart)
    torch.testing.assert_close(torch.cat([piece for piece, _ in outputs], dim=2), image, rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_queries", [364, 384])
def test_ring_gets_a_log_sum_exp_for_each_query(tmp_path: Path, num_queries: int):
    with Gang(Layout(), tmp_path) as gang:
        assert gang.run(work.log_sum_exp_shape, num_queries) == [(1, 2, num_queries)]
        [known] = gang.run(work.kernels_of_xfuser)
    assert {kernel.xfuser for kernel in KERNELS.values()} <= known


@pytest.mark.slow
def test_a_cuda_build_of_torch_works_on_a_machine_without_gpu(tmp_path: Path):
    with Gang(Layout(ulysses=2), tmp_path, before=work.pretend_a_cuda_build) as gang:
        outputs = gang.run(work.attend)
    image, _ = work.dense_attention()
    torch.testing.assert_close(torch.cat([piece for piece, _ in outputs], dim=2), image, rtol=0, atol=1e-5)


def test_the_process_group_must_have_the_size_of_the_layout(tmp_path: Path):
    with Gang(Layout(), tmp_path) as gang:
        (message,) = gang.run(work.raises, work.group_of_two)
    assert message == "ulysses 2 x ring 1 needs 2 ranks, but the process group has 1."
