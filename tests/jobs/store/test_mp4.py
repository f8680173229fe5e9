"""A video is written whole, in a form that browsers play, or not at all."""

import os
import subprocess
import sys
from pathlib import Path

import imageio_ffmpeg
import numpy as np
import pytest

from jobs.store.faults import MachineError
from jobs.store.files import sha256
from jobs.store.mp4 import probe, write_video

ROOT = Path(__file__).parents[3]


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


def replaced_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A shell script is ffmpeg from now on."""
    (tmp_path / "ffmpeg").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", str(tmp_path / "ffmpeg"))


@pytest.mark.timeout(60)
def test_the_next_piece_is_made_while_the_encoder_takes_the_one_before(tmp_path, monkeypatch):
    """This encoder takes nothing before the second piece is asked for; a pipe has no room for the first."""
    frames, asked = moving_square(height=480, width=640), tmp_path / "asked"
    whole = write_video(frames, tmp_path / "whole.mp4", fps=12)

    def pieces():
        yield frames[:5]
        asked.touch()
        yield frames[5:]

    wait = f"while [ ! -e {asked} ]; do sleep 0.01; done"
    replaced_ffmpeg(tmp_path, monkeypatch, f'{wait}\nexec {imageio_ffmpeg.get_ffmpeg_exe()} "$@"')
    assert write_video(pieces(), tmp_path / "pieces.mp4", fps=12) == whole


@pytest.mark.timeout(60)
def test_a_piece_that_fails_ends_an_encoder_that_takes_nothing(tmp_path, monkeypatch):
    def failing():
        yield moving_square(height=480, width=640)
        raise RuntimeError("a rank was lost")

    replaced_ffmpeg(tmp_path, monkeypatch, "exec sleep 600")
    with pytest.raises(RuntimeError, match="a rank was lost"):
        write_video(failing(), tmp_path / "v.mp4", fps=12)


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


HOSTILE = "=;#\\ \\n; [x]\n\ncafé 赤い球\tDuration: none\nStream #0:0: Video: none\r\n" + "very " * 32_000 + "long\\"


def test_tags_of_any_length_and_characters_are_kept_in_any_locale(tmp_path):
    code = (
        "import sys; from pathlib import Path; import numpy as np; from jobs.store.mp4 import write_video\n"
        "title = Path(sys.argv[2]).read_bytes().decode()\n"
        "tags = {'title': title, 'comment': '7'}\n"
        "write_video(np.zeros((2, 16, 16, 3), np.uint8), Path(sys.argv[1]), fps=8, metadata=tags)"
    )
    (tmp_path / "title").write_bytes(HOSTILE.encode())
    latin = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    command = [sys.executable, "-c", code, str(tmp_path / "v.mp4"), str(tmp_path / "title")]
    subprocess.run(command, check=True, cwd=ROOT, env={**os.environ, **latin}, timeout=60)
    read_tags = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(tmp_path / "v.mp4"), "-f", "ffmetadata", "-"]
    assert HOSTILE.encode() in (tmp_path / "v.mp4").read_bytes()
    assert b"\ncomment=7\n" in subprocess.run(read_tags, check=True, capture_output=True, timeout=60).stdout
    assert probe(tmp_path / "v.mp4").num_frames == 2


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


def test_a_torn_video_has_fewer_frames_or_does_not_decode(tmp_path):
    write_video(moving_square(), tmp_path / "v.mp4", fps=12)
    data = (tmp_path / "v.mp4").read_bytes()
    (tmp_path / "v.mp4").write_bytes(data[: data.index(b"mdat") + 700])
    try:
        assert probe(tmp_path / "v.mp4").num_frames < 9
    except OSError as error:
        assert "does not decode" in str(error)


def test_looking_at_a_video_reads_none_of_its_pixels(tmp_path):
    frames = moving_square(height=720, width=1280)
    write_video(frames, tmp_path / "v.mp4", fps=12)
    before = bytes_read()
    assert probe(tmp_path / "v.mp4").num_frames == len(frames)
    assert bytes_read() - before < frames[0].nbytes


def bytes_read() -> int:
    """By this process, from files and pipes."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(dict(line.split(": ") for line in lines)["rchar"])


def test_an_ffmpeg_that_is_killed_while_it_reads_is_a_fault_of_the_machine(tmp_path, monkeypatch):
    write_video(moving_square(), tmp_path / "v.mp4", fps=12)
    replaced_ffmpeg(tmp_path, monkeypatch, "kill -9 $$")
    with pytest.raises(MachineError, match=r"cannot read video .*v\.mp4: ffmpeg was ended by SIGKILL"):
        probe(tmp_path / "v.mp4")


COLOURS = [(0, 255, 0), (255, 0, 0), (0, 0, 255), (200, 30, 90)]


def shown_by_bt709(path, height: int, width: int) -> np.ndarray:
    """Every other pixel `[F, H / 2, W / 2, 3]` as a player shows it that takes everything for BT.709, limited range."""
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path)]
    command += ["-f", "rawvideo", "-pix_fmt", "yuv420p", "-"]
    raw = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    planes = np.frombuffer(raw, np.uint8).reshape(-1, height * width * 3 // 2)
    size, half = height * width, (height // 2, width // 2)
    luma = planes[:, :size].reshape(-1, height, width)[:, ::2, ::2]
    y = (luma.astype(np.float32) - 16) / 219
    u, v = ((part.reshape(-1, *half).astype(np.float32) - 128) / 224 for part in np.split(planes[:, size:], 2, axis=1))
    red, blue = y + 1.5748 * v, y + 1.8556 * u
    green = (y - 0.2126 * red - 0.0722 * blue) / 0.7152
    return (255 * np.stack([red, green, blue], axis=-1)).round().clip(0, 255)


@pytest.mark.parametrize("height, width", [(128, 128), (720, 1280)])
def test_colours_are_those_that_went_in_for_a_player_of_bt709(tmp_path, height, width):
    import imageio_ffmpeg

    frames = np.stack([np.full((height, width, 3), colour, np.uint8) for colour in COLOURS])
    write_video(frames, tmp_path / "v.mp4", fps=12)
    assert np.abs(shown_by_bt709(tmp_path / "v.mp4", height, width) - frames[:, ::2, ::2]).max() <= 2
    reader = imageio_ffmpeg.read_frames(str(tmp_path / "v.mp4"))
    assert next(reader)["pix_fmt"] == "yuv420p(tv, bt709, progressive)"  # matrix, primaries and transfer are one
    reader.close()
