"""When a video counts as finished, and what is said of one that has other settings."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from caching.recipe.schedule import Interval
from jobs.store.files import sha256
from jobs.store.items import BatchSettings, RenderItem
from jobs.store.known import Done, difference, is_intact, read_sidecar, remove_video, survey
from jobs.store.ledger import Ledger
from jobs.store.open import open_storage
from tests.jobs.store.example import finish, item, publish, settings

SECONDS = {"encode": 1, "denoise": 2, "decode": 3, "write": 4, "think": 5}


def finished(batch: BatchSettings, **options) -> Done | None:
    return survey(open_storage(batch.out), batch, [item()], **options).finished.get("0000")


def damage(path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_published_video_is_finished_with_or_without_the_ledger(tmp_path):
    batch = settings(tmp_path)
    assert finished(batch) is None
    done = finish(batch, item())
    assert finished(batch) == done
    open_storage(tmp_path).remove("ledger")
    without = finished(batch)
    assert without is not None and (without.sha256, without.stamp) == (done.sha256, None)


def test_a_video_is_unrecorded_until_the_ledger_has_it_as_it_lies_there(tmp_path):
    batch, one, storage = settings(tmp_path), item(), open_storage(tmp_path)
    publish(batch, one)
    [unrecorded] = survey(storage, batch, [one]).unrecorded
    ledger = Ledger(storage)
    ledger.add("done", **unrecorded.for_ledger())
    ledger.flush()
    known = survey(storage, batch, [one])
    assert (known.unrecorded, known.finished) == ([], {"0000": unrecorded})
    (tmp_path / f"{one.name}.mp4").touch()  # as a copy would
    [again] = survey(storage, batch, [one]).unrecorded
    assert again.sha256 == unrecorded.sha256 and again.stamp != unrecorded.stamp


@pytest.mark.parametrize("with_ledger", [True, False])
def test_a_damaged_video_is_not_finished(tmp_path, with_ledger):
    batch, one = settings(tmp_path), item()
    finish(batch, one) if with_ledger else publish(batch, one)
    damage(tmp_path / f"{one.name}.mp4")
    assert finished(batch) is None


@pytest.mark.parametrize("text", ["", "[]", '{"version": 2, "id"', "{}"])
def test_a_video_whose_sidecar_is_damaged_is_not_finished_whatever_the_ledger_says(tmp_path, text):
    batch, one = settings(tmp_path), item()
    finish(batch, one)
    (tmp_path / one.sidecar).write_text(text)
    assert finished(batch) is None


def test_a_sidecar_that_somebody_has_edited_is_read_once(tmp_path):
    batch, one, storage = settings(tmp_path), item(), open_storage(tmp_path)
    finish(batch, one)
    change_sidecar(tmp_path / one.sidecar, mood="blue")
    [unrecorded] = survey(storage, batch, [one]).unrecorded
    ledger = Ledger(storage)
    ledger.add("done", **unrecorded.for_ledger())
    ledger.flush()
    assert survey(storage, batch, [one]).unrecorded == [] and finished(batch) == unrecorded


def test_a_ledger_that_does_not_tell_the_size_of_sidecars_is_taken_as_it_is(tmp_path):
    batch, one, storage = settings(tmp_path), item(), open_storage(tmp_path)
    done = replace(finish(batch, one), num_sidecar_bytes=None)
    ledger = Ledger(storage)
    ledger.add("done", **done.for_ledger())
    ledger.flush()
    assert survey(storage, batch, [one]).unrecorded == [] and finished(batch) == done


def test_damage_that_left_no_trace_is_found_by_verifying(tmp_path):
    import os

    batch, one = settings(tmp_path), item()
    finish(batch, one)
    before = (tmp_path / f"{one.name}.mp4").stat()
    damage(tmp_path / f"{one.name}.mp4")
    os.utime(tmp_path / f"{one.name}.mp4", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert finished(batch)
    assert finished(batch, verify=True) is None


def test_a_video_that_is_gone_is_not_finished(tmp_path):
    batch, one = settings(tmp_path), item()
    finish(batch, one)
    (tmp_path / f"{one.name}.mp4").unlink()
    assert finished(batch) is None


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", "[" * 100_000, "\udcff"])
def test_without_a_ledger_a_damaged_sidecar_tells_nothing(tmp_path, text):
    batch, one = settings(tmp_path), item()
    publish(batch, one)
    (tmp_path / one.sidecar).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert finished(batch) is None


def change_sidecar(path: Path, **changes: object) -> None:
    told = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in told.items() if value is not None}))


@pytest.mark.parametrize("changes", [{"version": None}, {"version": 99, "mood": "blue", "seconds": SECONDS}])
def test_without_a_ledger_a_sidecar_of_an_older_or_newer_version_tells_that_its_video_is_finished(tmp_path, changes):
    batch, one = settings(tmp_path), item()
    publish(batch, one)
    change_sidecar(tmp_path / one.sidecar, **changes)
    done = finished(batch, verify=True)
    assert done is not None and done.sha256 == sha256(tmp_path / f"{one.name}.mp4")


def test_missing_latents_are_missed_only_when_asked_for(tmp_path):
    batch, one = settings(tmp_path), item()
    finish(batch, one)
    with_latents = settings(tmp_path, save_latents=True)
    assert finished(with_latents) is None
    finish(with_latents, one)
    assert finished(with_latents)


def test_other_settings_are_told_by_name(tmp_path):
    batch, one = settings(tmp_path), item()
    done = finish(batch, one)
    other, longer = settings(tmp_path, method=replace(batch.method, schedule=Interval(every=6))), item(steps=5)
    known = survey(open_storage(tmp_path), other, [longer])
    assert (known.finished, known.changed) == ({}, {"0000": done})
    told = "steps 4 -> 5, method.schedule.every 1 -> 6"
    assert difference(open_storage(tmp_path), other, longer, done) == told


@pytest.mark.parametrize("text", ["[]", "{", "[" * 100_000, '{"method": []}'])
def test_other_settings_are_told_whatever_has_become_of_the_sidecar(tmp_path, text):
    batch, one = settings(tmp_path), item()
    done = finish(batch, one)
    (tmp_path / one.sidecar).write_text(text)
    assert difference(open_storage(tmp_path), batch, item(steps=5), done)


def test_a_video_that_goes_while_it_is_looked_at_is_not_finished(tmp_path):
    batch, one, storage = settings(tmp_path), item(), open_storage(tmp_path)
    done, files = finish(batch, one), storage.folder("videos")
    (tmp_path / f"{one.name}.mp4").unlink()
    assert not is_intact(storage, done, files, verify=True)


def two_of_one_id(directory: Path, number: int) -> tuple[BatchSettings, RenderItem, RenderItem]:
    """An outdated video and the one of the edited prompt that has replaced it, before whatever is listed first."""
    batch, old, new = settings(directory), *(item(id=f"{number:04d}", prompt=prompt) for prompt in ("a red", "a blue"))
    publish(batch, old)
    publish(batch, new)
    return batch, old, new


def test_without_a_ledger_an_outdated_video_beside_the_finished_one_does_not_stand_in_its_way(tmp_path):
    pairs = [two_of_one_id(tmp_path, number) for number in range(6)]
    batch, new = pairs[0][0], [new for _, _, new in pairs]
    known = survey(open_storage(tmp_path), batch, new)
    assert list(known.finished) == [one.id for one in new] and not known.changed
    assert known.superseded == [old.name for _, old, _ in pairs]
    back = survey(open_storage(tmp_path), batch, [old for _, old, _ in pairs])
    assert len(back.finished) == 6 and back.superseded == [one.name for one in new]


def test_an_outdated_sidecar_is_known_without_its_video(tmp_path):
    batch, old, new = two_of_one_id(tmp_path, 0)
    (tmp_path / f"{old.name}.mp4").unlink()
    assert survey(open_storage(tmp_path), batch, [new]).superseded == [old.name]
    remove_video(open_storage(tmp_path), old.name)
    assert survey(open_storage(tmp_path), batch, [new]).superseded == []


def test_what_was_given_up_stays_so_until_it_is_retried(tmp_path):
    ledger = Ledger(open_storage(tmp_path))
    ledger.add("begin", total=1)
    ledger.add("fail", id="0000", n=2, error="ValueError: no")
    ledger.flush()
    assert survey(open_storage(tmp_path), settings(tmp_path), [item()]).given_up == {"0000": "ValueError: no"}
    ledger.add("begin", total=1, retry=True)
    ledger.flush()
    assert survey(open_storage(tmp_path), settings(tmp_path), [item()]).given_up == {}


def test_ledger_facts_read_back(tmp_path):
    done = finish(settings(tmp_path), item())
    assert Done.of_ledger(json.loads(json.dumps(done.for_ledger()))) == done


def test_an_image_is_known_again_by_its_png_and_takes_the_place_of_a_video(tmp_path):
    one, batch = item(num_frames=1), settings(tmp_path)
    finish(batch, one)
    images = settings(tmp_path, medium="image", fps=None, revision="of images")
    storage = open_storage(tmp_path)
    assert survey(storage, images, [one]).changed["0000"].file == f"{one.name}.mp4"
    done = finish(images, one)
    assert sorted(path.suffix for path in (tmp_path / "videos").iterdir()) == [".json", ".png"]
    known = survey(storage, images, [one])
    assert known.finished["0000"] == done and not known.unrecorded and done.file == f"{one.name}.png"
    damage(tmp_path / done.file)
    assert not survey(storage, images, [one]).finished
    sidecar = read_sidecar(storage, one.name)
    assert sidecar is not None and (sidecar.medium, sidecar.fps, sidecar.num_frames) == ("image", None, 1)
