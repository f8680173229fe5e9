"""Who is to blame for a failure, and what follows from it."""

import ast
import errno
import pickle
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
import torch
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
    summary_of,
)
from jobs.errors import InfrastructureError
from jobs.store.faults import MachineError, StorageError
from parallel.watch import RankLost

LOST = FailureKind.INFRASTRUCTURE
OWN = RankError(kind=FailureKind.ITEM, summary="ValueError: no such colour")
BROKEN_LINK = RankError(kind=FailureKind.INFRASTRUCTURE, summary="RuntimeError: connection closed by peer")
ROOT = Path(__file__).parents[2]


def carriers() -> Iterator[type[Exception]]:
    """Every class of the four packages that says itself how it counts."""
    for package in ("caching", "cluster", "jobs", "parallel"):
        for path in sorted((ROOT / package).rglob("*.py")):
            for node in ast.parse(path.read_text()).body:
                if isinstance(node, ast.ClassDef) and "failure_kind" in map(declared, node.body):
                    module = import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
                    yield getattr(module, node.name)


def declared(node: ast.stmt) -> str | None:
    targets = [node.target] if isinstance(node, ast.AnnAssign) else getattr(node, "targets", [None])
    return getattr(targets[0], "id", None)


def test_lost_gangs_storage_and_failures_of_the_item_have_budgets_of_their_own():
    budgets = Budgets(item_failures=3, gang_losses=2, storage_failures=9)
    assert decide(LOST, 1, budgets) is Decision.RETRY
    assert decide(LOST, 2, budgets) is Decision.FAIL
    assert decide(FailureKind.STORAGE, 8, budgets) is Decision.RETRY
    assert decide(FailureKind.STORAGE, 9, budgets) is Decision.FAIL
    assert decide(FailureKind.ITEM, 1, budgets) is Decision.RETRY
    assert decide(FailureKind.ITEM, 2, budgets) is Decision.RETRY_ON_FRESH_GANG
    assert decide(FailureKind.ITEM, 3, budgets) is Decision.FAIL
    assert decide(FailureKind.FINAL, 1, budgets) is Decision.FAIL


def test_the_waits_between_tries_double_up_to_a_minute():
    budgets = Budgets(backoff_s=2)
    assert [budgets.wait_s(failures) for failures in (1, 2, 3, 6, 60)] == [2, 4, 8, 60, 60]


def test_a_gang_is_started_again_unless_its_workload_raises():
    budgets = Budgets(starts=2)
    assert decide_start(LOST, starts=1, budgets=budgets) is Decision.RETRY
    assert decide_start(LOST, starts=2, budgets=budgets) is Decision.FAIL
    assert decide_start(FailureKind.START, starts=1, budgets=budgets) is Decision.FAIL


def test_broken_links_and_devices_differ_from_exceptions_of_the_item():
    assert classify(dist.DistBackendError("NCCL error")) is FailureKind.INFRASTRUCTURE
    gloo = RuntimeError("[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:547] Connection closed by peer")
    assert classify(gloo) is FailureKind.INFRASTRUCTURE
    assert classify(torch.AcceleratorError("CUDA error")) is FailureKind.INFRASTRUCTURE
    assert classify(OSError(errno.ENOSPC, "No space left on device", "/tmp/torchinductor")) is LOST
    assert classify(OSError("the MP4 has 4 frames, not 5")) is FailureKind.ITEM
    assert classify(RuntimeError("shapes do not match")) is FailureKind.ITEM
    assert classify(KeyError("prompt")) is FailureKind.ITEM


@pytest.mark.parametrize(
    ("family", "kind"), [(RankLost, LOST), (MachineError, LOST), (StorageError, FailureKind.STORAGE)]
)
def test_an_exception_counts_as_its_class_says_whatever_its_name(family: type[Exception], kind: FailureKind):
    renamed = type("AnythingElse", (family,), {})
    assert classify(family("no more")) is classify(renamed("no more")) is kind


def test_an_exception_of_our_own_is_told_by_its_sentence_alone_and_any_other_with_its_class():
    assert summary_of(StorageError("the disk is full")) == "the disk is full"
    assert summary_of(ValueError("no such colour")) == "ValueError: no such colour"
    assert summary_of(RankLost()) == "parallel.watch.RankLost"


def test_every_exception_that_says_how_it_counts_names_a_kind():
    families = list(carriers())
    assert {RankLost, InfrastructureError, StorageError} <= set(families)
    for family in families:
        renamed = type("AnythingElse", (family,), {"__init__": lambda self: None})
        assert classify(renamed()) is FailureKind(renamed.failure_kind)


@pytest.mark.parametrize("kind", FailureKind)
def test_a_kind_keeps_its_policy_on_its_way_from_a_rank(kind: FailureKind):
    assert pickle.loads(pickle.dumps(kind)) is kind is FailureKind(kind.value)
    assert kind.policy.limit(Budgets()) > 0


def test_a_broken_link_is_the_consequence_of_a_peer_that_raised():
    assert root_cause([BROKEN_LINK, OWN]) is OWN
    assert root_cause([BROKEN_LINK, BROKEN_LINK]) is BROKEN_LINK


def test_a_gang_goes_on_only_if_all_ranks_came_back_and_every_link_holds():
    assert is_gang_usable([OWN], num_missing=0)
    assert not is_gang_usable([OWN], num_missing=1)
    assert not is_gang_usable([OWN, BROKEN_LINK], num_missing=0)
