"""Names, sidecars, and when a video counts as finished."""

import pytest
from pydantic import ValidationError

from jobs.errors import BadInput
from jobs.store.files import check_writable
from jobs.store.items import check_names, slug, video_name
from tests.jobs.store.example import item


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
    assert item(tmp_path).video == "videos/0000-a-red-ball-s0.mp4"


def test_two_items_of_one_file_name_are_refused(tmp_path):
    with pytest.raises(BadInput, match="'a' and 'a-b' would both be written"):
        check_names([item(tmp_path, id="a", prompt="b c"), item(tmp_path, id="a-b", prompt="c")])


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a b", "x" * 65, "a\n", "a;b"])
def test_an_id_that_is_not_safe_in_a_file_name_is_no_item(tmp_path, name):
    with pytest.raises(ValidationError):
        item(tmp_path, id=name)


def test_what_decides_the_pixels_decides_the_fingerprint(tmp_path):
    one = item(tmp_path).fingerprint
    for change in ({"steps": 5}, {"guidance": 1.0}, {"revision": "abd"}, {"method": {"name": "resca"}}, {"height": 32}):
        assert item(tmp_path, **change).fingerprint != one
    for change in ({"model": "elsewhere"}, {"id": "other"}, {"out": "/elsewhere"}, {"save_latents": True}):
        assert item(tmp_path, **change).fingerprint == one


def test_output_below_a_file_is_refused_and_nothing_is_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="not a directory"):
        check_writable(tmp_path / "file" / "out", "output directory")
    check_writable(tmp_path / "new" / "out", "output directory")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
