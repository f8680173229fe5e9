"""The small picture beside a video: always small, of a frame of it, and never worth a video."""

import io

import numpy as np
import pytest
from PIL import Image

from jobs.store import publish as publishing
from jobs.store.faults import StorageError
from jobs.store.known import Done, remove_video, survey
from jobs.store.ledger_lines import LINE
from jobs.store.open import open_storage
from jobs.store.poster import MOST_BYTES, OneFrame, poster
from tests.jobs.store.example import done_line, finish, item, publish, settings


def opened(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    assert image.format == "WEBP"
    return image


@pytest.mark.parametrize(("height", "width"), [(16, 16), (720, 1280), (1280, 720), (2, 4000), (1024, 1024)])
def test_a_poster_is_small_whatever_is_in_it(height, width):
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    for frame in (noise, np.full_like(noise, 200)):
        data = poster(frame)
        assert len(data) < MOST_BYTES
        assert max(opened(data).size) <= 480


def test_a_plain_picture_keeps_its_shape_and_colour():
    frame = np.zeros((360, 640, 3), np.uint8)
    frame[:, :320] = (220, 40, 40)
    image = opened(poster(frame)).convert("RGB")
    assert image.size == (480, 270)
    assert np.allclose(image.getpixel((100, 100)), (220, 40, 40), atol=12)
    assert np.allclose(image.getpixel((400, 100)), 0, atol=12)


@pytest.mark.parametrize("place", [0, 2, 4])
def test_one_frame_is_kept_of_those_that_pass_by(place):
    frames = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
    kept = OneFrame(iter([frames[:1], frames[1:4], frames[4:]]), place)
    assert np.array_equal(np.concatenate(list(kept)), frames)
    assert kept.frame is not None and (kept.frame == place).all()


def test_a_video_has_its_poster_and_sidecar_and_ledger_tell_of_it(tmp_path):
    batch, one = settings(tmp_path), item()
    done = finish(batch, one)
    assert done.has_poster and (tmp_path / one.poster).stat().st_size < MOST_BYTES
    found = survey(open_storage(tmp_path), batch, [one])
    assert found.finished == {one.id: done} and not found.unrecorded
    open_storage(tmp_path).remove("ledger")
    assert survey(open_storage(tmp_path), batch, [one]).finished[one.id].has_poster


def test_a_lost_poster_leaves_a_video_finished(tmp_path):
    batch, one = settings(tmp_path), item()
    finish(batch, one)
    (tmp_path / one.poster).unlink()
    assert survey(open_storage(tmp_path), batch, [one], verify=True).finished.keys() == {one.id}


def test_a_poster_that_cannot_be_written_is_no_loss_and_no_earlier_one_stays(tmp_path, monkeypatch):
    def refuse(frame: np.ndarray) -> bytes:
        raise StorageError("no space left")

    batch, one = settings(tmp_path), item()
    publish(batch, one)
    assert (tmp_path / one.poster).exists()
    monkeypatch.setattr(publishing, "poster", refuse)
    assert not publish(batch, one).poster
    assert not (tmp_path / one.poster).exists() and (tmp_path / f"{one.name}.mp4").exists()


def test_an_image_has_one_where_it_is_big(tmp_path, monkeypatch):
    one = item(num_frames=1)
    assert not publish(settings(tmp_path, medium="image", fps=None), one).poster
    assert not (tmp_path / one.poster).exists()
    monkeypatch.setattr(publishing, "BIG_BYTES", 10)
    assert publish(settings(tmp_path, medium="image", fps=None), one).poster
    assert (tmp_path / one.poster).exists()


def test_what_is_removed_with_a_video_includes_its_poster(tmp_path):
    one = item()
    publish(settings(tmp_path), one)
    remove_video(open_storage(tmp_path), one.name)
    assert not list((tmp_path / "videos").iterdir())


def test_lines_of_earlier_versions_tell_of_none():
    line = {"e": "done", "t": 1.0, **done_line("a", stamp="1")}
    assert "poster" not in line and not Done.of_ledger(LINE.validate_python(line)).has_poster  # type: ignore[arg-type]
