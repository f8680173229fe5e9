"""Who is to blame for a failure, and what follows from it."""

import torch.distributed as dist

from cluster.failure import (
    Budgets,
    Decision,
    FailureKind,
    RankError,
    classify,
    decide,
    decide_start,
    is_gang_usable,
    root_cause,
)

LOST = FailureKind.INFRASTRUCTURE
OWN = RankError(kind=FailureKind.ITEM, summary="ValueError: no such colour")
BROKEN_LINK = RankError(kind=FailureKind.INFRASTRUCTURE, summary="RuntimeError: connection closed by peer")


def test_lost_gangs_storage_and_failures_of_the_item_have_budgets_of_their_own():
    budgets = Budgets(item_failures=3, gang_losses=2, storage_failures=9)
    assert decide(LOST, 1, budgets) is Decision.RETRY
    assert decide(LOST, 2, budgets) is Decision.FAIL
    assert decide(FailureKind.STORAGE, 8, budgets) is Decision.RETRY
    assert decide(FailureKind.STORAGE, 9, budgets) is Decision.FAIL
    assert decide(FailureKind.ITEM, 1, budgets) is Decision.RETRY
    assert decide(FailureKind.ITEM, 2, budgets) is Decision.RETRY_ON_FRESH_GANG
    assert decide(FailureKind.ITEM, 3, budgets) is Decision.FAIL


def test_the_waits_between_tries_double_up_to_a_minute():
    budgets = Budgets(backoff_s=2)
    assert [budgets.wait_s(failures) for failures in (1, 2, 3, 6, 60)] == [2, 4, 8, 60, 60]


def test_a_gang_is_started_again_unless_its_workload_raises():
    budgets = Budgets(starts=2)
    assert decide_start(LOST, starts=1, budgets=budgets) is Decision.RETRY
    assert decide_start(LOST, starts=2, budgets=budgets) is Decision.FAIL
    assert decide_start(FailureKind.START, starts=1, budgets=budgets) is Decision.FAIL


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
