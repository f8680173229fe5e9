"""A group of one rank answers to everything that a group of several does, and sends nothing."""

import pytest
import torch

from parallel.group import make_group
from parallel.layout import Layout
from parallel.single import SingleGroup
from tests.parallel import work


def test_a_layout_of_one_rank_needs_no_process_group():
    group = make_group(Layout())
    assert isinstance(group, SingleGroup)
    assert (group.rank, group.world_size, group.layout) == (0, 1, Layout())
    group.close()


def test_all_tokens_are_its_own():
    group, tokens = SingleGroup(), torch.randn(2, 8, 3)
    group.divide([8])
    assert all(value is tokens for value in (group.shard(tokens), group.gather(tokens), group.total(tokens)))
    assert group.broadcast([tokens])[0] is tokens


def test_its_attention_is_that_of_all_tokens():
    outputs = SingleGroup().attend(*work.qkv(work.TOKENS, 0), *work.qkv(work.TEXT, 1))
    assert all(map(torch.equal, outputs, work.dense_attention()))


def test_nothing_is_booked_but_the_kinds_of_step():
    group = SingleGroup()
    group.mark("dense", 1)
    with group.guard():
        group.gather(torch.ones(1, 2, 3))
        group.expect("all_gather")
        group.arrived()
    assert group.counter.rows() == [{"step": "dense", "steps": 1, "calls": 0, "bytes_sent": 0, "peers": 0}]


def test_there_is_nobody_to_send_to():
    with pytest.raises(RuntimeError, match="nobody"):
        SingleGroup().send(torch.ones(1))
    with pytest.raises(RuntimeError, match="nobody"):
        SingleGroup().receive(1, (1,), torch.float32)
    with pytest.raises(ValueError, match="something to broadcast"):
        SingleGroup().broadcast(None)
