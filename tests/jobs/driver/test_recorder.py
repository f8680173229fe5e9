"""What is written down while a batch runs: by real events, into a real directory."""

import json
from pathlib import Path

import pytest

from caching.recipe.recipe import RECIPES
from cluster.events import GangEvent, ItemDone, ItemFailed, ItemRunning
from cluster.failure import FailureKind
from cluster.job import Job
from jobs.driver.recorder import Recorder
from jobs.store.items import RenderItem
from jobs.store.known import survey
from jobs.store.ledger import read_state
from jobs.store.open import open_storage
from tests.jobs.store.example import item, publish, settings


def recorder_of(directory: Path, *items: RenderItem) -> Recorder:
    """One that has begun; none of the items is to be rendered on a Ray."""
    storage, batch = open_storage(directory), settings(directory)
    recorder = Recorder(storage, batch, items, survey(storage, batch, items), title="demo")
    recorder.begin(total=len(items), todo=0, model="demo", method="full")
    return recorder


def started(one: RenderItem, index: int = 0) -> ItemRunning:
    return ItemRunning(kind="item_started", gang=0, job=Job(index=index, item=one, attempts=1))


def how_it_ended(directory: Path) -> str:
    ended = read_state(open_storage(directory)).ended
    assert ended is not None
    return ended["how"]


def statuses(directory: Path) -> list[str]:
    return shown(directory, "status")


def shown(directory: Path, field: str) -> list[str]:
    """Of the gallery's videos."""
    head, _, rows = (directory / "gallery" / "0000.js").read_text().partition(", [\n")
    names = json.loads(head.removeprefix("gallery.chunk("))["fields"]
    return [json.loads(row)[names.index(field)] for row in rows.removesuffix("\n]);\n").split(",\n")]


def test_a_batch_that_is_stopped_shows_no_video_as_running(tmp_path):
    first, second = item(), item(id="0001")
    recorder = recorder_of(tmp_path, first, second)
    recorder.note(started(first))
    recorder.note(started(second, 1))
    recorder.tick()
    assert statuses(tmp_path) == ["running", "running"]
    recorder.close("stopped")
    assert statuses(tmp_path) == ["waiting", "waiting"]
    assert dict(read_state(open_storage(tmp_path)).counts()) == {"waiting": 2}


@pytest.mark.parametrize("kind", [FailureKind.START, FailureKind.STORAGE])
def test_a_batch_that_has_left_videos_for_the_next_run_is_not_done(tmp_path, kind):
    one = item()
    recorder = recorder_of(tmp_path, one)
    recorder.note(GangEvent(kind="gang_lost", gang=0, error="no such module"))
    job = Job(index=0, item=one, attempts=0)
    recorder.note(ItemFailed(kind="item_failed", job=job, error="no such module", failure=kind))
    recorder.close("done")
    assert how_it_ended(tmp_path) == "unfinished"


def test_a_batch_whose_videos_are_there_or_given_up_is_done(tmp_path):
    one, bad = item(), item(id="0001")
    recorder = recorder_of(tmp_path, one, bad)
    recorder.note(started(one))
    result = publish(settings(tmp_path), one).model_dump(mode="json")
    recorder.note(ItemDone(gang=0, job=Job(index=0, item=one, attempts=1), result=result))
    job = Job(index=1, item=bad, attempts=2)
    recorder.note(ItemFailed(kind="item_failed", job=job, error="no", failure=FailureKind.ITEM))
    recorder.close("done")
    assert how_it_ended(tmp_path) == "done" and statuses(tmp_path) == ["done", "failed"]


def test_the_gallery_shows_each_video_with_its_method(tmp_path):
    items, batch = (item(), item(id="0001", method="auto")), settings(tmp_path, methods={"auto": RECIPES["auto"]})
    storage = open_storage(tmp_path)
    recorder = Recorder(storage, batch, items, survey(storage, batch, items), title="demo")
    recorder.close("done")
    assert shown(tmp_path, "method") == ["full", "auto"]


def test_a_video_that_replaces_another_one_removes_it_once_it_is_there(tmp_path):
    batch, old, new = settings(tmp_path, save_latents=True), item(), item(prompt="a blue ball")
    publish(batch, old)
    recorder = recorder_of(tmp_path, new)
    recorder.note(started(new))
    recorder.flush()
    assert len(list((tmp_path / "videos").iterdir())) == 4
    result = publish(settings(tmp_path), new).model_dump(mode="json")
    recorder.note(ItemDone(gang=0, job=Job(index=0, item=new, attempts=1), result=result))
    recorder.close("done")
    assert {path.name for path in (tmp_path / "videos").iterdir()} == {
        "0000-a-blue-ball-s0.mp4",
        "0000-a-blue-ball-s0.webp",
        "0000-a-blue-ball-s0.json",
    }
