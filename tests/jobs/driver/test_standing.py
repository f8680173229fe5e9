"""How a batch stands: counts, pace and cost by its events."""

import pytest

from cluster.events import Event, GangEvent, ItemDone, ItemFailed, ItemRunning
from cluster.failure import FailureKind
from cluster.job import Job
from jobs.driver.standing import Standing, pace, spent_words
from jobs.store.usage import Usage
from tests.jobs.store.example import item

JOBS = [Job(index=index, item=item(id=f"{index:04d}")) for index in range(6)]


class Clock:
    """Seconds since 1970, as a test has them."""

    now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def standing_at(clock: Clock, *events: tuple[float, Event], price: float | None = None) -> Standing:
    """After what happened at those seconds."""
    standing = Standing(6, noun="image", usage=Usage(on_gpus=True, price=price), known=(3, 1), clock=clock)
    for clock.now_s, event in events:
        standing.note(event)
    return standing


def failed(job: Job, kind: FailureKind) -> ItemFailed:
    return ItemFailed(kind="item_failed", job=job, error="no", failure=kind)


READY = GangEvent(kind="gang_ready", gang=0, hosts=("a", "a"), held_s=400.0)
STORY = (
    (1500.0, READY),
    (1500.0, ItemRunning(kind="item_started", gang=0, job=JOBS[0])),
    (1510.0, ItemRunning(kind="item_progress", gang=0, job=JOBS[0], fraction=0.5)),
    (1520.0, ItemDone(gang=0, job=JOBS[0], result={})),
    (1520.0, ItemRunning(kind="item_started", gang=0, job=JOBS[1])),
    (1530.0, ItemRunning(kind="item_progress", gang=0, job=JOBS[1], fraction=0.25)),
    (1530.0, failed(JOBS[2], FailureKind.ITEM)),
    (1530.0, failed(JOBS[3], FailureKind.START)),
)


def test_every_video_is_counted_once(clock):
    standing = standing_at(clock, *STORY)
    assert (standing.total, standing.done, standing.failed, standing.running, standing.waiting) == (10, 4, 2, 1, 3)
    assert standing.under_way == ["0001"] and standing.completed == pytest.approx(3.25)
    assert standing.fraction == pytest.approx(3.25 / 6)


def test_the_start_is_not_counted_in_the_pace(clock):
    standing = standing_at(clock, *STORY)
    assert standing.rate == pytest.approx(180.0)
    assert standing.pace_words == ["180 images an hour"]


def test_what_gangs_hold_is_counted_with_their_loading_and_priced(clock):
    standing = standing_at(clock, *STORY, price=2.5)
    clock.now_s = 1100.0 + 3600.0
    assert standing.hours == pytest.approx(2.0) and standing.cost == pytest.approx(5.0)
    assert standing.spent_words == ["2 GPU-hours", "cost 5.00"]
    standing.end()
    clock.now_s += 7200.0
    assert standing.hours == pytest.approx(2.0) and standing.running == 0


def test_there_is_no_pace_before_a_video_has_taken_a_while():
    assert pace(0, 0.0, 100.0) is None
    assert pace(1, None, 100.0) is None
    assert pace(1, 100.0, 100.2) is None
    assert pace(10, 0.0, 360.0) == pytest.approx(100.0)


def test_what_is_expected_stands_beside_what_was_spent():
    usage = Usage(price=1000.0)
    usage.ready(0, 4, now_s=0.0)
    assert spent_words(usage, 3600.0, left_s=1800.0) == ["4 of about 6 rank-hours", "cost 4,000.00 of about 6,000.00"]
    assert spent_words(usage, 3600.0) == ["4 rank-hours", "cost 4,000.00"]
    assert spent_words(Usage(price=1.0), 3600.0) == []
