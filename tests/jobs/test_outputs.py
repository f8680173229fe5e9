"""Names, sidecars, and when a video counts as finished."""

from typing import Any

import numpy as np
import pytest

from jobs.errors import BadInput
from jobs.outputs import (
    RenderItem,
    Seconds,
    Sidecar,
    World,
    check_names,
    check_writable,
    finished,
    slug,
    video_name,
    write_sidecar,
)
from jobs.video import write_video


def item(directory, **changes) -> RenderItem:
    values: dict[str, Any] = dict(
        id="0000", prompt="a red ball", seed=0, height=16, width=16, num_frames=5, fps=8, steps=4, guidance=6.0,
        model="demo", revision="abc", method={"name": "full"}, dtype="float32", gangs=1, out=str(directory),
        save_latents=False,
    )  # fmt: skip
    return RenderItem(**(values | changes))


def publish(item: RenderItem) -> Sidecar:
    item.video.parent.mkdir(exist_ok=True)
    digest = write_video(np.zeros((5, 16, 16, 3), np.uint8), item.video, item.fps)
    same = item.model_dump(include=set(Sidecar.model_fields))
    sidecar = Sidecar(
        **same, dense_steps=4, sparse_steps=0, flops=8.0, flops_full=8.0, versions={}, sha256=digest,
        seconds=Seconds(encode=0.1, denoise=2, decode=0.3, write=0.1), bytes=item.video.stat().st_size,
        layout=World(ulysses=1, ring=1, world_size=1, gangs=1), fingerprint=item.fingerprint,
    )  # fmt: skip
    write_sidecar(sidecar, item.sidecar)
    return sidecar


@pytest.mark.parametrize(
    "prompt, expected",
    [
        ("A red ball, moving left!", "a-red-ball-moving-left"),
        ("Café, crème", "cafe-creme"),
        ("赤い球", "video"),
        ("../../etc/passwd", "etc-passwd"),
        ("x" * 60, "x" * 40),
        ("one two three four five six seven eight nine", "one-two-three-four-five-six-seven-eight"),
    ],
)
def test_slug_is_short_lower_case_ascii(prompt, expected):
    assert slug(prompt) == expected
    assert len(slug(prompt)) <= 40


def test_video_name_tells_id_prompt_and_seed(tmp_path):
    assert video_name("0007", "a red ball", 42) == "0007-a-red-ball-s42"
    assert item(tmp_path).video == tmp_path / "videos" / "0000-a-red-ball-s0.mp4"


def test_two_items_of_one_file_name_are_refused(tmp_path):
    with pytest.raises(BadInput, match="'a' and 'a-b' would both be written"):
        check_names([item(tmp_path, id="a", prompt="b c"), item(tmp_path, id="a-b", prompt="c")])


def test_published_video_is_finished_and_its_sidecar_reads_back(tmp_path):
    sidecar = publish(item(tmp_path))
    assert finished(item(tmp_path)) == sidecar
    assert sidecar.seconds.total == pytest.approx(2.5)


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 5},
        {"guidance": 1.0},
        {"revision": "abd"},
        {"method": {"name": "resca"}},
        {"dtype": "bfloat16"},
        {"height": 32},
        {"fps": 9},
    ],
)
def test_anything_that_changes_the_pixels_makes_it_unfinished(tmp_path, change):
    publish(item(tmp_path))
    assert finished(item(tmp_path, **change)) is None


def test_layout_and_the_models_name_do_not_make_it_unfinished(tmp_path):
    publish(item(tmp_path))
    assert finished(item(tmp_path, gangs=2, model="elsewhere"))


def test_damaged_video_is_not_finished(tmp_path):
    publish(item(tmp_path))
    data = bytearray(item(tmp_path).video.read_bytes())
    data[len(data) // 2] ^= 1
    item(tmp_path).video.write_bytes(data)
    assert finished(item(tmp_path)) is None


@pytest.mark.parametrize("text", ["", "{", "{}", "\udcff"])
def test_damaged_sidecar_is_not_finished(tmp_path, text):
    publish(item(tmp_path))
    item(tmp_path).sidecar.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert finished(item(tmp_path)) is None


def test_missing_latents_are_missed_only_when_asked_for(tmp_path):
    publish(item(tmp_path))
    assert finished(item(tmp_path, save_latents=True)) is None
    item(tmp_path).latents.write_bytes(b"latents")
    assert finished(item(tmp_path, save_latents=True))


def test_output_below_a_file_is_refused_and_nothing_is_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="not a directory"):
        check_writable(tmp_path / "file" / "out", "output directory")
    check_writable(tmp_path / "new" / "out", "output directory")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
