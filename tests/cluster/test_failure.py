"""Who is to blame for a failure, and what follows from it."""

import torch.distributed as dist

from cluster.failure import Decision, FailureKind, RankError, classify, decide, decide_start, is_gang_usable, root_cause

OWN = RankError(kind=FailureKind.ITEM, summary="ValueError: no such colour")
BROKEN_LINK = RankError(kind=FailureKind.INFRASTRUCTURE, summary="RuntimeError: connection closed by peer")


def test_an_item_is_retried_once_when_its_gang_is_lost():
    assert decide(FailureKind.INFRASTRUCTURE, attempts=1) is Decision.RETRY
    assert decide(FailureKind.INFRASTRUCTURE, attempts=2) is Decision.FAIL


def test_an_item_that_raises_is_never_retried():
    assert decide(FailureKind.ITEM, attempts=1) is Decision.FAIL


def test_a_gang_is_started_again_unless_its_workload_raises():
    assert decide_start(FailureKind.INFRASTRUCTURE, starts=1) is Decision.RETRY
    assert decide_start(FailureKind.INFRASTRUCTURE, starts=2) is Decision.FAIL
    assert decide_start(FailureKind.START, starts=1) is Decision.FAIL


def test_broken_links_are_told_from_exceptions_of_the_item():
    assert classify(dist.DistBackendError("NCCL error")) is FailureKind.INFRASTRUCTURE
    gloo = RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer")
    assert classify(gloo) is FailureKind.INFRASTRUCTURE
    assert classify(RuntimeError("shapes do not match")) is FailureKind.ITEM
    assert classify(KeyError("prompt")) is FailureKind.ITEM


def test_a_broken_link_is_the_consequence_of_a_peer_that_raised():
    assert root_cause([BROKEN_LINK, OWN]) is OWN
    assert root_cause([BROKEN_LINK, BROKEN_LINK]) is BROKEN_LINK


def test_a_gang_goes_on_only_if_all_ranks_came_back_and_every_link_holds():
    assert is_gang_usable([OWN], num_missing=0)
    assert not is_gang_usable([OWN], num_missing=1)
    assert not is_gang_usable([OWN, BROKEN_LINK], num_missing=0)
