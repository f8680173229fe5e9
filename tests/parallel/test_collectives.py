"""What the counter counts, and under which kind of step."""

import pytest

from parallel.collectives import CollectiveCounter, sent_bytes


@pytest.mark.parametrize("num_ranks", [2, 4, 8])
def test_bytes_sent_are_those_that_leave_the_rank(num_ranks):
    others = num_ranks - 1
    assert sent_bytes("all_to_all", 800, num_ranks) == 800 * others // num_ranks
    assert sent_bytes("all_gather", 800, num_ranks) == 800 * others
    assert sent_bytes("all_reduce", 800, num_ranks) == 2 * 800 * others // num_ranks
    assert sent_bytes("broadcast", 800, num_ranks) == 800 * others
    assert sent_bytes("send", 800, num_ranks) == 800


@pytest.mark.parametrize("collective", ["all_to_all", "all_gather", "all_reduce", "broadcast"])
def test_one_rank_alone_sends_nothing(collective):
    assert sent_bytes(collective, 800, 1) == 0


def test_calls_are_booked_under_the_kind_of_step_named_last():
    counter = CollectiveCounter()
    counter.book("broadcast", 10, 2)
    counter.mark("dense")
    counter.book("all_to_all", 100, 2)
    counter.book("all_to_all", 100, 2)
    counter.book("all_gather", 7, 4)
    counter.mark("sparse")
    counter.mark("dense")
    counter.book("all_gather", 7, 4)
    assert counter.rows() == [
        {"step": "setup", "steps": 0, "calls": 1, "bytes_sent": 10, "peers": 1},
        {"step": "dense", "steps": 2, "calls": 4, "bytes_sent": 100 + 42, "peers": 3},
        {"step": "sparse", "steps": 1, "calls": 0, "bytes_sent": 0, "peers": 0},
    ]
    assert counter.details() == [
        {"step": "setup", "collective": "broadcast", "peers": 1, "calls": 1, "bytes_sent": 10},
        {"step": "dense", "collective": "all_to_all", "peers": 1, "calls": 2, "bytes_sent": 100},
        {"step": "dense", "collective": "all_gather", "peers": 3, "calls": 2, "bytes_sent": 42},
    ]


def test_clear_starts_over():
    counter = CollectiveCounter()
    counter.mark("dense")
    counter.book("all_reduce", 8, 2)
    counter.clear()
    assert counter.rows() == counter.details() == []
