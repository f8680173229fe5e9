"""What is added to a batch, or withdrawn, while its driver is at work: by real queue, ledger and lock, without Ray."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.backlog import Backlog
from cluster.events import ItemDone, ItemRunning, Outcome
from cluster.intake import Intake, Order
from cluster.job import Job
from jobs.console import make_console
from jobs.driver.arrivals import Arrivals
from jobs.driver.batch_plan import Plan, make_plan
from jobs.driver.ending import Told
from jobs.driver.progress import LINE
from jobs.driver.recorder import Recorder
from jobs.driver.standing import standing_of
from jobs.driver.view import BatchView
from jobs.options.batch import RenderOptions
from jobs.options.command_line import parse
from jobs.store.additions import Additions
from jobs.store.items import RenderItem
from jobs.store.known import Known
from jobs.store.ledger import read_state
from jobs.store.lock import DriverLock, read_holder
from parallel.layout import Layout
from tests.jobs.store.example import publish

pytestmark = pytest.mark.timeout(60)


class Running:
    """A driver's parts while it runs a plan."""

    def __init__(self, plan: Plan, lock: DriverLock, stays: bool = False, layout: Layout | None = None) -> None:
        self.plan, self.storage, self.stays = plan, plan.storage, stays
        self.backlog: Backlog[RenderItem, dict] = Backlog(may_grow=True)
        self.intake = Intake(self.backlog, Order(), iter(range(100)))
        self.intake.add(plan.todo)
        self.recorder = Recorder(plan.storage, plan.settings, plan.batch, Known(), title="x")
        self.recorder.begin(total=len(plan.batch), todo=0, added=plan.num_added or None)
        self.standing = standing_of(plan)
        view = BatchView(make_console(), self.standing)
        gangs = layout or Layout()
        told = Told(replace(plan.options, progress="jsonl"))
        followers = [self.standing, view, self.recorder, told]
        self.arrivals = Arrivals(plan, lock, gangs, view, self.recorder, followers, lambda: self.stays)
        self.outcomes: list[Outcome] = []

    def ask(self) -> bool:
        self.arrivals._due_s = 0.0
        return self.arrivals(self.intake)

    def take(self) -> Job[RenderItem]:
        job = self.backlog.take()
        assert job is not None
        self.recorder.note(ItemRunning(kind="item_started", gang=0, job=job))
        return job

    def finish(self, job: Job[RenderItem]) -> None:
        result = publish(self.plan.settings, job.item).model_dump(mode="json")
        self.recorder.note(ItemDone(gang=0, job=job, result=result))
        self.backlog.finish(job, Outcome(item=job.item, attempts=1, result=result))

    def finish_all(self) -> list[str]:
        done = []
        while not self.intake.is_idle:
            job = self.take()
            self.finish(job)
            done.append(job.item.id)
        return done


@pytest.fixture
def start(place: Path) -> Iterator[Callable[..., Running]]:
    options = parse(["render", "good.txt", "--out", "out", "--model", "model"])
    assert isinstance(options, RenderOptions)
    plan = make_plan(options)
    with DriverLock(plan.storage) as lock:
        yield lambda **how: Running(make_plan(options), lock, **how)


def like(item: RenderItem, **changes: object) -> RenderItem:
    return item.model_copy(update=changes)


def add(running: Running, *items: RenderItem) -> None:
    Additions(running.storage).add(lambda members: items)


def changes(said: str) -> list[tuple[str, list[str]]]:
    """What lines of JSON say has come and gone; each is of the schema."""
    lines = [line for line in said.splitlines() if line.startswith("{")]
    return [(line["e"], line["ids"]) for line in map(LINE.validate_json, lines) if "ids" in line]


def test_what_is_added_is_rendered_and_counted(start, capsys):
    running = start()
    one = running.plan.todo[0]
    assert running.ask() and len(running.backlog) == 2
    add(running, like(one, id="a", priority=1), like(one, id="b", method="full"))
    assert running.ask() and len(running.backlog) == 4 and running.standing.todo == 4
    assert sorted(running.finish_all()) == ["0000", "0001", "a", "b"]
    said = capsys.readouterr().out
    assert "added: a to b (4 in all)" in said
    assert changes(said) == [("added", ["a", "b"])]
    plan, outcomes = running.arrivals.at_the_end(running.backlog.take_outcomes())
    assert [item.id for item in plan.items] == [outcome.item.id for outcome in outcomes] == ["0000", "0001", "a", "b"]
    running.recorder.close("done")
    assert dict(read_state(running.storage).counts()) == {"done": 4}
    assert (Path("out") / "gallery" / "0000.js").read_text().count('"done"') == 4


def test_one_that_comes_at_the_very_end_is_rendered_or_sees_the_end_coming(start):
    running = start()
    running.finish_all()
    add(running, like(running.plan.items[0], id="late"))
    assert not read_holder(running.storage).is_ending
    assert running.arrivals(running.intake) and not read_holder(running.storage).is_ending
    assert running.finish_all() == ["late"]
    assert not running.arrivals(running.intake) and read_holder(running.storage).is_ending


def test_a_driver_that_stays_waits_with_its_gangs_until_it_need_not(start):
    running = start(stays=True)
    running.finish_all()
    assert running.ask() and running.arrivals.keeps_gangs
    running.stays = False
    assert not running.ask() and not running.arrivals.keeps_gangs


def test_what_is_withdrawn_in_time_is_not_rendered_and_what_was_begun_leaves_no_file(start, capsys):
    running = start()
    one = running.plan.todo[0]
    add(running, *(like(one, id=each) for each in ("waits", "runs", "ends")))
    assert running.ask()
    jobs = {job.item.id: job for job in (running.take() for _ in range(5))}
    running.finish(jobs.pop("ends"))
    running.backlog.put_back(jobs.pop("waits"))
    adder = Additions(running.storage)
    assert all(adder.withdraw(each) for each in ("waits", "runs", "ends"))
    assert running.ask()
    assert changes(capsys.readouterr().out)[1:] == [("withdrawn", ["waits"])]
    running.finish(jobs.pop("runs"))
    for job in jobs.values():
        running.finish(job)
    assert running.intake.is_idle
    assert sorted(path.name[:4] for path in Path("out/videos").glob("*.mp4")) == ["0000", "0001"]
    plan, outcomes = running.arrivals.at_the_end(running.backlog.take_outcomes())
    assert [item.id for item in plan.items] == sorted(outcome.item.id for outcome in outcomes) == ["0000", "0001"]
    running.recorder.close("done")
    assert dict(read_state(running.storage).counts()) == {"done": 2}


def test_what_these_gangs_cannot_render_is_left_out_with_a_reason(start, capsys):
    running = start(layout=Layout(ulysses=2))
    one = running.plan.todo[0]
    add(running, like(one, id="size", height=60), like(one, id="method", method="rescue"))
    add(running, like(one, id="ranks", method="resca", height=16, width=16), like(one, id="good"))
    assert running.ask() and len(running.backlog) == 3
    told = capsys.readouterr().out
    assert "size: left out: size (added): height 60" in told and "method: left out, as there is no method" in told


def test_a_storage_that_does_not_answer_is_asked_again(start, monkeypatch):
    running = start()
    add(running, like(running.plan.todo[0], id="a"))
    with monkeypatch.context() as patch:
        patch.setattr(running.storage, "folder", refused)
        assert running.ask() and len(running.backlog) == 2
    assert running.ask() and len(running.backlog) == 3


def refused(name: str) -> None:
    raise OSError("no answer")
