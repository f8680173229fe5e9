"""What a batch makes of items that fail, ranks that die, hang or fall silent, and storage that refuses."""

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.batch import Event, run_batch
from cluster.failure import Budgets, FailureKind
from tests.cluster.toy import SINGLE, VAIN, AwayFromTheHub, BrokenWorkload, WatchedToy, kinds, losses, run

pytestmark = [pytest.mark.timeout(400), pytest.mark.usefixtures("nothing_is_left")]


def test_an_item_that_raises_is_tried_once_more_on_a_fresh_gang_and_the_rest_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    items = [{"value": 1}, {"value": 2, "first": "fail"}, {"value": 3}]
    outcomes, events = run(tmp_path, items, spec=SINGLE)
    assert [outcome.failure for outcome in outcomes] == [None, FailureKind.ITEM, None]
    assert outcomes[1].error == "ValueError: a poison item"
    assert outcomes[1].attempts == 2
    assert kinds(events) == [
        *("gang_starting", "gang_ready", "item_started", "item_done", "item_started", "item_retried"),
        *("item_started", "item_done"),
        *("gang_starting", "gang_ready", "item_started", "item_failed"),
    ]
    assert "in fail" in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2


@pytest.mark.slow
def test_a_rank_that_raises_alone_does_not_hang_the_others(short_grace, tmp_path: Path):
    items = [{"value": 1, "first": "fail", "rank": 1}, {"value": 2}]
    outcomes, events = run(tmp_path, items, budgets=Budgets(item_failures=1))
    assert outcomes[0].error == "ValueError: a poison item"
    assert outcomes[1].result["total"] == 6
    assert kinds(events).count("gang_starting") == 2


def test_a_killed_rank_costs_one_attempt(tmp_path: Path):
    outcomes, events = run(tmp_path, [{"value": 1}, {"value": 2, "first": "die_once", "rank": 1}, {"value": 3}])
    assert [outcome.result["total"] for outcome in outcomes] == [3, 6, 9]
    assert [outcome.attempts for outcome in outcomes] == [1, 2, 1]
    [lost] = losses(events)
    assert lost.job is not None and lost.job.index == 1
    assert lost.error is not None and lost.error.startswith("Rank 1 on ")


@pytest.mark.slow
def test_a_stopped_rank_costs_one_attempt_and_is_named(short_grace, tmp_path: Path):
    items = [{"value": 1}, {"value": 2, "first": "stop_once", "rank": 1}, {"value": 3}]
    outcomes, events = run(tmp_path, items, toy=WatchedToy)
    assert [outcome.result["total"] for outcome in outcomes] == [3, 6, 9]
    assert [outcome.attempts for outcome in outcomes] == [1, 2, 1]
    [lost] = losses(events)
    assert lost.job is not None and lost.job.index == 1
    assert lost.error is not None and "rank 1 does not answer" in lost.error


@pytest.mark.slow
def test_an_item_that_loses_three_gangs_is_failed_and_the_rest_goes_on(tmp_path: Path):
    outcomes, _ = run(tmp_path, [{"value": 1, "first": "die"}, {"value": 2}], spec=SINGLE)
    assert [outcome.failure for outcome in outcomes] == [FailureKind.INFRASTRUCTURE, None]
    assert outcomes[0].attempts == 3


def test_a_hung_session_costs_one_attempt_and_its_stacks_are_reported(short_grace, tmp_path: Path):
    spec = replace(SINGLE, collective_timeout_s=2)
    outcomes, events = run(tmp_path, [{"value": 1, "first": "hang_once"}, {"value": 2}], spec=spec)
    assert [outcome.result["total"] for outcome in outcomes] == [1, 2]
    [lost] = losses(events)
    assert lost.error is not None and lost.error.startswith("No progress for 2 s")
    assert lost.traceback is not None and "in hang_once" in lost.traceback


def test_what_a_rank_waits_for_in_vain_is_the_error_though_it_can_raise_nothing(short_grace, tmp_path: Path):
    """On a GPU the host only enqueues collectives: all ranks answer, and the one that knows says it to whoever asks."""
    items = [{"value": 1, "first": "wait_in_vain", "rank": 1}]
    outcomes, events = run(tmp_path, items, budgets=Budgets(gang_losses=1))
    assert (outcomes[0].failure, outcomes[0].error) == (FailureKind.INFRASTRUCTURE, VAIN)
    [lost] = losses(events)
    assert lost.error == VAIN and lost.traceback is not None and "in wait_in_vain" in lost.traceback


def test_a_long_step_of_many_collectives_does_not_stand_still(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """So that the ranks' own deadline, which begins with each collective and names who is missing, comes first."""
    monkeypatch.setattr("cluster.gang.GRACE_S", 0.2)
    spec = replace(SINGLE, collective_timeout_s=0.5)
    outcomes, events = run(tmp_path, [{"value": 1, "first": "work_in_collectives"}], spec, gangs=2)
    assert outcomes[0].result["total"] == 1 and not losses(events)
    assert kinds(events).count("gang_starting") == 1  # no more gangs than items


@pytest.mark.slow
def test_a_silent_process_costs_one_attempt(tmp_path: Path):
    spec = replace(SINGLE, silence_s=3)
    outcomes, events = run(tmp_path, [{"value": 1, "first": "stop_once"}], spec=spec)
    assert outcomes[0].result["total"] == 1
    [lost] = losses(events)
    assert lost.error is not None and lost.error.startswith("No answer for 3 s from rank 0 on ")


def test_what_a_storage_refuses_is_tried_again_by_the_same_gang_which_takes_nothing_else(tmp_path: Path):
    items = [{"value": 1, "first": "be_refused_twice"}, {"value": 2}]
    outcomes, events = run(tmp_path, items, spec=SINGLE, budgets=Budgets(backoff_s=0.01))
    assert [(outcome.result["total"], outcome.attempts) for outcome in outcomes] == [(1, 3), (2, 1)]
    waiting = ["item_started", "item_retried"] * 2
    assert kinds(events) == ["gang_starting", "gang_ready", *waiting, *["item_started", "item_done"] * 2]


def test_a_storage_that_refuses_one_item_for_long_and_then_the_next_ends_the_batch(tmp_path: Path):
    """One alone is left, as the fault may be in its own files."""
    good, bad = {"value": 1}, {"value": 2, "first": "be_refused"}
    outcomes, _ = run(
        tmp_path, [bad, good, bad, bad, good], spec=SINGLE, budgets=Budgets(storage_failures=2, backoff_s=0.01)
    )
    assert [outcome.attempts for outcome in outcomes] == [2, 1, 2, 1, 0]
    assert [outcome.failure for outcome in outcomes] == [FailureKind.STORAGE, None, *[FailureKind.STORAGE] * 3]
    assert {outcome.error for outcome in outcomes if outcome.failure} == {"no room"}


def test_a_workload_that_cannot_be_built_fails_every_item_untried():
    events: list[Event] = []
    items = [1, 2]
    outcomes = run_batch(spec=SINGLE, gangs=1, workload=BrokenWorkload(), items=items, on_event=events.append)
    assert [outcome.failure for outcome in outcomes] == [FailureKind.START] * 2
    assert {outcome.error for outcome in outcomes} == {"OSError: no weights here"}
    assert kinds(events) == ["gang_starting", "gang_lost", "item_failed", "item_failed"]


def test_a_node_that_cannot_fetch_what_it_needs_counts_as_the_error_does():
    events: list[Event] = []
    workload, budgets = AwayFromTheHub(), Budgets(starts=1)
    [outcome] = run_batch(spec=SINGLE, gangs=1, workload=workload, items=[1], budgets=budgets, on_event=events.append)
    assert outcome.error == "the hub does not answer"
    assert [event.error for event in losses(events)] == [outcome.error]
    assert outcome.failure is FailureKind.INFRASTRUCTURE
