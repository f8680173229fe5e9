"""What gangs have held: by the lines of a ledger, whatever became of the drivers."""

import pytest

from jobs.store.ledger import BatchState
from jobs.store.usage import Usage

HOSTS = ["a", "a", "b", "b"]


def state_of(*lines: dict) -> BatchState:
    state = BatchState()
    for line in lines:
        state.read(line)  # type: ignore[arg-type]
    return state


BEGIN = {"e": "begin", "t": 1000.0, "total": 4, "gpus": True, "price": 2.5}
READY = {"e": "gang_ready", "t": 1100.0, "g": 0, "hosts": HOSTS, "held": 60.0}


def test_a_gang_counts_from_its_place_to_its_end_for_each_rank():
    state = state_of(BEGIN, READY, {"e": "end", "t": 4640.0, "how": "done"})
    usage = state.usage
    assert usage.hours(99_999.0) == pytest.approx(4 * 3600 / 3600)
    assert (usage.on_gpus, usage.price, usage.unit, usage.num_ranks) == (True, 2.5, "GPU-hours", 0)


def test_a_gang_that_runs_counts_until_now_and_for_what_is_expected():
    usage = state_of(BEGIN, READY, {**READY, "t": 1200.0, "g": 1, "held": 0.0}).usage
    assert usage.hours(1200.0) == pytest.approx(4 * 160 / 3600)
    assert usage.expected_hours(1200.0, left_s=450.0) == pytest.approx((4 * 160 + 8 * 450) / 3600)


def test_of_a_driver_that_was_killed_gangs_count_to_its_last_line():
    start = {"e": "start", "t": 1300.0, "id": "a"}
    again = {"e": "begin", "t": 9000.0, "total": 4}
    usage = state_of(BEGIN, READY, start, again).usage
    assert usage.hours(9999.0) == pytest.approx(4 * 260 / 3600)
    assert (usage.price, usage.on_gpus, usage.ready_s) == (2.5, True, None)


def test_lost_and_closed_gangs_count_no_further_and_a_new_one_takes_their_place():
    lost = {"e": "gang_lost", "t": 1140.0, "g": 0, "error": "no"}
    closed = {"e": "gang_closed", "t": 1260.0, "g": 0}
    usage = state_of(BEGIN, READY, lost, {**READY, "t": 1200.0}, closed, closed).usage
    assert usage.hours(9999.0) == pytest.approx(4 * (100 + 120) / 3600)


def test_a_clock_that_goes_back_takes_nothing_away():
    usage = Usage()
    usage.ready(0, 2, 100.0)
    usage.gone(0, 50.0)
    assert usage.hours(0.0) == 0.0


def test_a_ledger_of_an_earlier_version_that_names_no_hosts_counts_no_hours():
    usage = state_of({"e": "begin", "t": 1.0, "total": 1}, {"e": "gang_ready", "t": 2.0, "g": 0}).usage
    assert usage.hours(5000.0) == 0.0 and usage.ready_s == 2.0


def test_a_gang_that_batches_share_counts_its_start_and_then_while_it_runs_something():
    shared = {**READY, "shared": True}
    ran = {"e": "start", "t": 1200.0, "id": "a", "g": 0}
    done = {"e": "done", "t": 1300.0, "id": "a", "g": 0, "file": "x.mp4"}
    usage = state_of(BEGIN, shared, ran, done).usage
    assert usage.hours(1500.0) == pytest.approx(4 * (60 + 100) / 3600)
    assert usage.expected_hours(1500.0, left_s=100.0) == pytest.approx(4 * (160 + 0.25 * 100) / 3600)
    running = state_of(BEGIN, shared, ran, done, {**ran, "t": 1400.0, "id": "b"}).usage
    assert running.hours(1500.0) == pytest.approx(4 * 260 / 3600)
    later = state_of(BEGIN, shared, ran, done, {"e": "gang_closed", "t": 1900.0, "g": 0}).usage
    assert later.hours(9999.0) == pytest.approx(4 * 160 / 3600)


@pytest.mark.parametrize("how", ["again", "fail", "left"])
def test_a_shared_gang_rests_however_an_item_ends(how):
    ended = {"e": how, "t": 1300.0, "id": "a", "g": 0}
    usage = state_of(BEGIN, {**READY, "shared": True}, {"e": "start", "t": 1200.0, "id": "a", "g": 0}, ended).usage
    assert usage.hours(9999.0) == pytest.approx(4 * (60 + 100) / 3600)


def test_a_gang_that_took_the_place_of_another_counts_from_when_that_was_gone():
    usage = state_of(BEGIN, READY, {**READY, "t": 1200.0, "held": 60.0}).usage
    assert usage.hours(1200.0) == pytest.approx(4 * (100 + 60) / 3600)


def test_a_shared_gang_that_has_run_nothing_yet_is_expected_to_be_used():
    usage = state_of(BEGIN, {**READY, "shared": True}).usage
    assert usage.expected_hours(1500.0, left_s=100.0) == pytest.approx(4 * (60 + 100) / 3600)
