"""Weights split over real gloo ranks: what each holds, what it computes, what it sends."""

import gc
import os
import signal

import pytest
import torch
from torch import nn

from parallel.layout import Layout
from parallel.sharding import gathered_bytes, held_bytes, shard, units
from parallel.watch import RankLost
from parallel.weights import fill, stored_tensors
from tests.parallel.gang import Gang
from tests.parallel.small_model import FILE, own_bytes, save, small
from tests.parallel.test_weights import CPU, WORDS, empty
from tests.parallel.work import SeenCollectives


def untied(module):
    """Without the parameter that two modules share: FSDP2 splits those of one module at a time."""
    del module.out
    return module


def run_split(group, folder):
    """Output, bytes held, the counter's rows and what was really sent; and again the bytes, after it ran."""
    module = untied(empty())
    shard(module, group, whole=[module.blocks[0][0]])
    fill(module, stored_tensors(folder, FILE), CPU)
    before = own_bytes(module)
    group.counter.clear()
    with torch.inference_mode(), SeenCollectives() as seen:
        output = module(WORDS)
    return output.clone(), before, own_bytes(module), group.counter.details(), seen.calls


def run_split_until_rank_1_dies(group, folder):
    """What rank 0 complains of."""
    module = untied(empty())
    shard(module, group)
    fill(module, stored_tensors(folder, FILE), CPU)
    group.mark("dense", 1)
    if group.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    with pytest.raises(RankLost) as error, torch.inference_mode(), group.guard():
        module(WORDS)
    return str(error.value)


@pytest.mark.timeout(200)
def test_a_rank_that_dies_is_named_where_its_weights_are_missing(tmp_path):
    folder = save(untied(small()), tmp_path / "saved", num_files=1)
    with Gang(Layout(ulysses=2), tmp_path, deadline_s=4) as gang:
        gang.send(run_split_until_rank_1_dies, folder)
        assert gang.answer(0) == (
            "all_gather in dense step 1 did not end, deadline 4 s: rank 1 does not answer (stopped, killed or cut off)."
        )


@pytest.mark.timeout(300)
@pytest.mark.parametrize("num_ranks", [2, 3])
def test_a_split_module_computes_the_same_and_holds_what_is_counted(num_ranks, tmp_path):
    whole = untied(small())
    folder = save(whole, tmp_path / "saved", num_files=2)
    expected = held_bytes(whole, num_ranks, whole=[whole.blocks[0][0]])
    with torch.inference_mode(), Gang(Layout(ring=num_ranks), tmp_path) as gang:
        for output, before, after, booked, seen in gang.run(run_split, folder):
            assert torch.equal(output, whole(WORDS))
            assert before == after == expected
            assert {name for name, _, _ in seen} == {"all_gather"} and len(seen) == 3  # an embedding and two blocks
            (row,) = booked
            assert (row["calls"], row["bytes_sent"]) == (3, sum(sent * (ranks - 1) for _, sent, ranks in seen))


def run_blocks_out_of_order(group, folder):
    """How many units were sent to run the first block, it again, both, and it; and calls as booked and as seen."""
    module = untied(empty())
    shard(module, group)
    fill(module, stored_tensors(folder, FILE), CPU)
    group.counter.clear()
    counts = []
    with torch.inference_mode(), SeenCollectives() as seen:
        for numbers in ((0,), (0,), (0, 1), (0,)):
            for number in numbers:
                module.blocks[number](torch.zeros(1, 6))
            counts.append(len(seen.calls))
        output = module.blocks[1](torch.ones(1, 6))
    (row,) = group.counter.details()
    return counts, row["calls"], seen.calls, output.clone()


@pytest.mark.timeout(300)
def test_the_next_block_is_gathered_while_one_runs_and_given_back_if_it_does_not_follow(tmp_path):
    whole = untied(small())
    folder = save(whole, tmp_path / "saved")
    with torch.inference_mode(), Gang(Layout(ring=2), tmp_path) as gang:
        for counts, booked, seen, output in gang.run(run_blocks_out_of_order, folder):
            assert counts == [2, 4, 6, 8] and booked == len(seen) == 8  # the last block had been on its way
            assert torch.equal(output, whole.blocks[1](torch.ones(1, 6)))


def gathered_for_a_block(group):
    """Bytes of the tensors that are there while blocks of a split module run and not before; and what is counted."""
    module = nn.Module()
    module.blocks = nn.ModuleList([nn.Sequential(nn.Linear(256, 512), nn.Linear(512, 256)) for _ in range(2)])
    shard(module, group)
    alive = []
    with torch.inference_mode():
        for block in module.blocks:
            block(torch.zeros(1, 256))
        before = bytes_alive()
        for block in module.blocks:
            block[1].register_forward_pre_hook(lambda *_: alive.append(bytes_alive()))
        for number in (0, 1, 0, 0, 1):  # also the first block again, when the second is on its way
            module.blocks[number](torch.zeros(1, 256))
    activations = 4 * (256 + 512)
    gathered = [each - before - activations for each in alive]
    return gathered, gathered_bytes(module, group.world_size), bytes_alive() - before


def bytes_alive():
    """The memory of every tensor that Python knows of."""
    gc.collect()
    kinds = (torch.Tensor, nn.Parameter)
    known = [each.untyped_storage() for each in gc.get_objects() if type(each) in kinds]
    return sum({storage.data_ptr(): storage.nbytes() for storage in known}.values())


@pytest.mark.timeout(300)
def test_a_block_that_runs_holds_what_is_counted_as_gathered_and_gives_it_back(tmp_path):
    with Gang(Layout(ring=3), tmp_path) as gang:
        for gathered, counted, left in gang.run(gathered_for_a_block):
            last, first = counted / 2, counted  # nothing is on its way while the last block runs
            for held, wanted in zip(gathered, (first, last, first, first, last), strict=True):
                assert abs(held - wanted) <= 4096  # an activation or two
            assert left <= 4096


def test_units_are_blocks_and_embeddings():
    module = small()
    assert units(module) == [module.embed, *module.blocks]


def test_one_rank_holds_everything_and_gathers_nothing():
    module = untied(small())
    everything = sum(each.nbytes for each in [*module.parameters(), *module.buffers()])
    assert held_bytes(module) == everything and gathered_bytes(module, 1) == 0


def test_shares_are_counted_by_rows_which_the_last_ranks_fill_up():
    module = untied(small())
    embedding, block, rest = 11 * 6, 7 * 6 + 7 + 6 * 7 + 6, 5 * 6 + 5 + 1 + 3 + 4
    assert held_bytes(module) == 4 * (embedding + 2 * block + rest)
    of_3 = 4 * 6, 3 * 6 + 3 + 2 * 7 + 2
    assert held_bytes(module, 3) == 4 * (of_3[0] + 2 * of_3[1] + rest)
    assert gathered_bytes(module, 3) == 4 * 2 * 3 * of_3[1]
