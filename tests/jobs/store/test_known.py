"""When a video counts as finished, and what is said of one that has other settings."""

import json

import pytest

from jobs.store.items import RenderItem
from jobs.store.known import Done, difference, survey
from jobs.store.ledger import Ledger
from jobs.store.open import open_storage
from tests.jobs.store.example import finish, item, publish


def finished(one: RenderItem, **options) -> Done | None:
    return survey(open_storage(one.out), [one], **options).finished.get(one.id)


def damage(path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_published_video_is_finished_with_or_without_the_ledger(tmp_path):
    one = item(tmp_path)
    assert finished(one) is None
    done = finish(one)
    assert finished(one) == done
    open_storage(tmp_path).remove("ledger")
    without = finished(one)
    assert without is not None and (without.sha256, without.stamp) == (done.sha256, None)


def test_a_video_is_untold_until_the_ledger_has_it_as_it_lies_there(tmp_path):
    one, storage = item(tmp_path), open_storage(tmp_path)
    publish(one)
    [untold] = survey(storage, [one]).untold
    ledger = Ledger(storage)
    ledger.add("done", **untold.facts())
    ledger.flush()
    known = survey(storage, [one])
    assert (known.untold, known.finished) == ([], {"0000": untold})
    (tmp_path / one.video).touch()  # as a copy would
    [again] = survey(storage, [one]).untold
    assert again.sha256 == untold.sha256 and again.stamp != untold.stamp


@pytest.mark.parametrize("with_ledger", [True, False])
def test_a_damaged_video_is_not_finished(tmp_path, with_ledger):
    one = item(tmp_path)
    finish(one) if with_ledger else publish(one)
    damage(tmp_path / one.video)
    assert finished(one) is None


def test_damage_that_left_no_trace_is_found_by_verifying(tmp_path):
    import os

    one = item(tmp_path)
    finish(one)
    before = (tmp_path / one.video).stat()
    damage(tmp_path / one.video)
    os.utime(tmp_path / one.video, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert finished(one)
    assert finished(one, verify=True) is None


def test_a_video_that_is_gone_is_not_finished(tmp_path):
    one = item(tmp_path)
    finish(one)
    (tmp_path / one.video).unlink()
    assert finished(one) is None


@pytest.mark.parametrize("text", ["", "{", "{}", "\udcff"])
def test_without_a_ledger_a_damaged_sidecar_tells_nothing(tmp_path, text):
    one = item(tmp_path)
    publish(one)
    (tmp_path / one.sidecar).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert finished(one) is None


def test_missing_latents_are_missed_only_when_asked_for(tmp_path):
    one = item(tmp_path)
    finish(one)
    assert finished(item(tmp_path, save_latents=True)) is None
    finish(item(tmp_path, save_latents=True))
    assert finished(item(tmp_path, save_latents=True))


def test_other_settings_are_told_by_name(tmp_path):
    one = item(tmp_path)
    done = finish(one)
    other = item(tmp_path, steps=5, method={"name": "full", "schedule": {"every": 6}})
    known = survey(open_storage(tmp_path), [other])
    assert (known.finished, known.changed) == ({}, {"0000": done})
    assert difference(open_storage(tmp_path), other, done) == "steps 4 -> 5, method.schedule.every null -> 6"


def test_what_was_given_up_stays_so_until_it_is_retried(tmp_path):
    ledger = Ledger(open_storage(tmp_path))
    ledger.add("begin", total=1)
    ledger.add("fail", id="0000", n=2, error="ValueError: no")
    ledger.flush()
    assert survey(open_storage(tmp_path), [item(tmp_path)]).given_up == {"0000": "ValueError: no"}
    ledger.add("begin", total=1, retry=True)
    ledger.flush()
    assert survey(open_storage(tmp_path), [item(tmp_path)]).given_up == {}


def test_ledger_facts_read_back(tmp_path):
    done = finish(item(tmp_path))
    assert Done.of_ledger(json.loads(json.dumps(done.facts()))) == done
