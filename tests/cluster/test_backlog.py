"""The order in which a backlog hands out its jobs."""

import threading
import time
from dataclasses import replace

from cluster.backlog import Backlog
from cluster.events import Outcome
from cluster.job import Job


def jobs(*costs: float, shape=None) -> list[Job]:
    return [Job(index=index, item=index, cost=cost, shape=shape) for index, cost in enumerate(costs)]


def taken(backlog: Backlog, shape=None) -> list[int]:
    order = []
    while (job := backlog.take(shape)) is not None:
        order.append(job.index)
    return order


def test_the_costliest_come_first_and_equal_ones_in_their_order():
    assert taken(Backlog(jobs(1, 3, 2, 3))) == [1, 3, 2, 0]


def test_a_gang_stays_with_its_shape_while_there_is_any():
    mixed = [replace(job, shape="wide" if job.index % 2 else "tall") for job in jobs(9, 1, 8, 2, 7)]
    assert taken(Backlog(mixed), shape="wide") == [3, 1, 0, 2, 4]


def test_urgent_ones_come_first_whatever_they_cost_and_whatever_their_shape():
    urgent = [replace(job, priority=priority) for job, priority in zip(jobs(1, 9, 2, 8), (1, 0, 1, -1), strict=True)]
    assert taken(Backlog(urgent)) == [2, 0, 1, 3]
    mixed = [replace(job, shape="wide" if job.index % 2 else "tall") for job in urgent]
    assert taken(Backlog(mixed), shape="wide") == [2, 0, 1, 3]


def test_what_is_withdrawn_in_time_has_no_outcome():
    backlog = Backlog(jobs(1, 2, 3))
    running, failed = backlog.take(), backlog.take()
    assert running is not None and failed is not None
    backlog.put_back(failed)
    assert [job.index for job in backlog.withdraw(lambda item: item in (0, 1, 2))] == [0, 1]
    assert len(backlog) == 1 and backlog.take() is None


def test_what_failed_comes_back_after_its_backoff_and_before_the_rest():
    backlog = Backlog(jobs(1, 1, 1))
    first = backlog.take()
    assert first is not None and first.attempts == 1
    backlog.put_back(replace(first, not_before=time.monotonic() + 0.2))
    second = backlog.take()
    assert second is not None and second.index == 1
    time.sleep(0.25)
    again = backlog.take()
    assert again is not None and (again.index, again.attempts) == (0, 2)


def test_it_is_worth_staying_until_every_item_has_its_outcome():
    backlog, stop = Backlog(jobs(1)), threading.Event()
    job = backlog.take()
    assert job is not None
    threading.Timer(0.3, lambda: backlog.finish(job, Outcome(item=0, attempts=1))).start()
    assert not backlog.is_worth_staying(stop)
    assert len(backlog) == 0 and [outcome.item for outcome in backlog.take_outcomes()] == [0]


def test_whoever_waits_can_be_woken():
    backlog, stop = Backlog(jobs(1)), threading.Event()
    backlog.take()
    assert backlog.is_worth_staying(stop, wake=lambda: True)


def test_one_that_may_grow_is_worth_staying_at_until_it_is_closed():
    backlog, stop = Backlog(jobs(1), may_grow=True), threading.Event()
    job = backlog.take()
    assert job is not None
    backlog.finish(job, Outcome(item=0, attempts=1))
    threading.Timer(0.2, lambda: backlog.add([Job(index=1, item=1, cost=1.0), Job(index=2, item=2, cost=5.0)])).start()
    assert backlog.is_worth_staying(stop) and not backlog.is_running_out
    assert taken(backlog) == [2, 1]
    assert [outcome.item for outcome in backlog.take_outcomes()] == [0] and not backlog.take_outcomes()
    for index in (1, 2):
        backlog.finish(Job(index=index, item=index), Outcome(item=index, attempts=1))
    threading.Timer(0.2, backlog.close).start()
    assert not backlog.is_worth_staying(stop) and backlog.is_over
