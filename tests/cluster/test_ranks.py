"""Ranks follow nodes, then devices."""

from cluster.ranks import Member, assign_ranks


def member(host: str, accelerator: str = "") -> Member:
    return Member(node_id=f"id-of-{host}", host=host, accelerator=accelerator)


def test_ranks_are_sorted_by_node_then_by_device():
    scattered = [member("10.0.0.2", "1"), member("10.0.0.1", "0"), member("10.0.0.2", "0"), member("10.0.0.1", "1")]
    assert [context.rank for context in assign_ranks(scattered)] == [3, 0, 2, 1]


def test_device_and_host_numbers_are_compared_as_numbers():
    members = [member("10.0.0.10", "10"), member("10.0.0.10", "9"), member("10.0.0.9", "0")]
    assert [context.rank for context in assign_ranks(members)] == [2, 1, 0]


def test_local_ranks_count_within_a_node():
    members = [member("a"), member("b"), member("a"), member("b"), member("b")]
    assert [context.local_rank for context in assign_ranks(members)] == [0, 0, 1, 1, 2]


def test_ranks_on_one_node_without_accelerators_keep_their_order():
    contexts = assign_ranks([member("a")] * 3)
    assert [context.rank for context in contexts] == [0, 1, 2]
    assert {context.world_size for context in contexts} == {3}


def test_a_worker_sees_its_own_accelerator_only():
    contexts = assign_ranks([member("a", "5"), member("a")])
    assert [context.device for context in contexts] == ["cuda:0", "cpu"]
