"""A video is written whole, in a form that browsers play, or not at all."""

import os

import numpy as np
import pytest

from jobs.store.files import sha256
from jobs.store.mp4 import probe, write_video


def moving_square(num_frames: int = 9, height: int = 48, width: int = 64) -> np.ndarray:
    frames = np.full((num_frames, height, width, 3), 40, np.uint8)
    for number in range(num_frames):
        frames[number, 16:32, 4 + 4 * number : 20 + 4 * number] = (220, 40, 40)
    return frames


def test_video_decodes_to_the_frames_that_went_in(tmp_path):
    import imageio.v3 as imageio

    frames = moving_square()
    write_video(frames, tmp_path / "v.mp4", fps=12)
    decoded = imageio.imread(tmp_path / "v.mp4", plugin="FFMPEG")
    assert decoded.shape == frames.shape
    assert np.abs(decoded.astype(int) - frames).mean() < 3


def test_pieces_in_order_give_the_same_file(tmp_path):
    frames = moving_square()
    whole = write_video(frames, tmp_path / "whole.mp4", fps=12)
    assert write_video(iter([frames[:1], frames[1:4], frames[4:]]), tmp_path / "pieces.mp4", fps=12) == whole


def test_a_piece_that_fails_or_is_of_another_size_leaves_nothing(tmp_path):
    def failing():
        yield moving_square()
        raise RuntimeError("a rank was lost")

    with pytest.raises(RuntimeError, match="a rank was lost"):
        write_video(failing(), tmp_path / "v.mp4", fps=12)
    with pytest.raises(ValueError, match="of one size"):
        write_video([moving_square(), moving_square(width=66)], tmp_path / "v.mp4", fps=12)
    with pytest.raises(ValueError, match="at least one"):
        write_video([], tmp_path / "v.mp4", fps=12)
    assert not list(tmp_path.iterdir())


def test_video_is_h264_that_starts_before_it_is_loaded(tmp_path):
    write_video(moving_square(), tmp_path / "v.mp4", fps=12)
    facts = probe(tmp_path / "v.mp4")
    assert (facts.num_frames, facts.width, facts.height, facts.fps) == (9, 64, 48, 12)
    assert (facts.codec, facts.pixel_format) == ("h264", "yuv420p")
    data = (tmp_path / "v.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_metadata_lands_in_the_tags(tmp_path):
    write_video(moving_square(), tmp_path / "v.mp4", fps=12, metadata={"title": "a red square", "seed": "7"})
    data = (tmp_path / "v.mp4").read_bytes()
    assert b"a red square" in data and b"seed" in data


def test_digest_is_that_of_the_file_and_equal_frames_give_equal_files(tmp_path):
    digests = {write_video(moving_square(), tmp_path / name, fps=12) for name in ("a.mp4", "b.mp4")}
    assert digests == {sha256(tmp_path / "a.mp4")}


def test_single_frame_is_a_video(tmp_path):
    write_video(moving_square(1), tmp_path / "v.mp4", fps=12)
    assert probe(tmp_path / "v.mp4").num_frames == 1


@pytest.mark.parametrize(
    "frames", [np.zeros((2, 8, 8, 3)), np.zeros((2, 9, 8, 3), np.uint8), np.zeros((8, 8, 3), np.uint8)]
)
def test_frames_that_do_not_fit_leave_nothing(tmp_path, frames):
    with pytest.raises(ValueError, match="frames must be"):
        write_video(frames, tmp_path / "v.mp4", fps=12)
    assert not list(tmp_path.iterdir())


def test_failed_write_keeps_the_old_video_and_leaves_no_partial_file(tmp_path):
    write_video(moving_square(), tmp_path / "v.mp4", fps=12)
    before = sha256(tmp_path / "v.mp4")
    with pytest.raises(OSError, match="cannot write video"):
        write_video(moving_square(), tmp_path / "v.mp4", fps=0)
    assert sha256(tmp_path / "v.mp4") == before
    assert os.listdir(tmp_path) == ["v.mp4"]


def test_what_a_killed_writer_left_behind_is_cleaned_by_the_next(tmp_path):
    (tmp_path / ".v.mp4.part").write_bytes(b"half a video")
    write_video(moving_square(), tmp_path / "v.mp4", fps=12)
    assert os.listdir(tmp_path) == ["v.mp4"]


def test_file_that_is_no_video_does_not_decode(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"not a video")
    with pytest.raises(OSError, match="does not decode"):
        probe(tmp_path / "v.mp4")
