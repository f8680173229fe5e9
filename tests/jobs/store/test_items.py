"""Names, sidecars, and when a video counts as finished."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from caching.recipe.recipe import RECIPES, recipe
from jobs.errors import BadInput
from jobs.store.files import check_writable
from jobs.store.items import SIDECAR_VERSION, BatchSettings, RenderItem, Sidecar, check_names, slug, video_name
from tests.jobs.store.example import item, settings, sidecar_of


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


def test_video_name_tells_id_prompt_and_seed():
    assert video_name("0007", "a red ball", 42) == "0007-a-red-ball-s42"
    assert [settings("out", medium=each).file(item()).rpartition(".")[2] for each in ("video", "image")] == [
        "mp4",
        "png",
    ]
    assert item().name == "videos/0000-a-red-ball-s0"


def test_two_items_of_one_file_name_are_refused():
    with pytest.raises(BadInput, match="'a' and 'a-b' would both be written"):
        check_names([item(id="a", prompt="b c"), item(id="a-b", prompt="c")])


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".hidden", "a b", "x" * 65, "a\n", "a;b"])
def test_an_id_that_is_not_safe_in_a_file_name_is_no_item(name):
    with pytest.raises(ValidationError):
        item(id=name)


def test_what_decides_the_pixels_decides_the_fingerprint(tmp_path):
    one = settings(tmp_path).fingerprint(item())
    for change in ({"guidance": 1.0}, {"revision": "abd"}, {"method": RECIPES["resca"]}):
        assert settings(tmp_path, **change).fingerprint(item()) != one
    for change in ({"steps": 5}, {"height": 32}):
        assert settings(tmp_path).fingerprint(item(**change)) != one
    for change in ({"model": "elsewhere"}, {"out": "/elsewhere"}, {"save_latents": True}):
        assert settings(tmp_path, **change).fingerprint(item(id="other")) == one


def test_an_attention_kernel_decides_where_it_is_named_and_videos_of_older_versions_named_none(tmp_path):
    one = settings(tmp_path)
    assert "attention" not in one.deciding(item())
    assert settings(tmp_path, attention="sage").fingerprint(item()) != one.fingerprint(item())


def test_weights_decide_where_they_are_in_8_bits_and_videos_of_older_versions_named_none(tmp_path):
    one = settings(tmp_path)
    assert "weights" not in one.deciding(item())
    assert settings(tmp_path, weights="fp8").fingerprint(item()) != one.fingerprint(item())


def test_an_items_own_method_decides_by_its_recipe_and_that_of_others_by_none(tmp_path):
    batch = settings(tmp_path, methods={"resca": RECIPES["resca"], "auto": RECIPES["auto"]})
    assert batch.fingerprint(item()) == settings(tmp_path).fingerprint(item())
    by_resca = settings(tmp_path, method=RECIPES["resca"])
    assert batch.deciding(item(method="resca")) == by_resca.deciding(item())
    assert batch.fingerprint(item(method="resca")) == by_resca.fingerprint(item())
    other = settings(tmp_path, methods={"resca": recipe("resca", interval=4)})
    assert other.fingerprint(item(method="resca")) != batch.fingerprint(item(method="resca"))


def test_output_below_a_file_is_refused_and_nothing_is_made(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput, match="not a directory"):
        check_writable(tmp_path / "file" / "out", "output directory")
    check_writable(tmp_path / "new" / "out", "output directory")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


OLD = Path(__file__).parent / "sidecar_1.json"  # as version 1 wrote it; it stays as it is


def test_a_sidecar_of_the_first_version_is_read_and_its_fingerprint_is_still_that_of_its_settings():
    sidecar = Sidecar.model_validate_json(OLD.read_text())
    assert (sidecar.version, sidecar.id, sidecar.dense_steps, sidecar.sparse_steps) == (1, "done", 6, 10)
    asked = sidecar.model_dump()
    of_batch = {name: asked.get(name, "") for name in BatchSettings.model_fields if name != "methods"}
    batch = BatchSettings(**of_batch | {"save_latents": True})
    one = RenderItem(**{name: asked.get(name) for name in RenderItem.model_fields if name != "method"})
    assert batch.fingerprint(one) == sidecar.fingerprint


def test_a_sidecar_of_today_has_all_that_the_first_version_had():
    sidecar = sidecar_of(settings("out"), item()).model_dump(mode="json")
    assert sidecar["version"] == SIDECAR_VERSION > 1
    old = json.loads(OLD.read_text())
    assert set(old) <= set(sidecar) and set(old["seconds"]) <= set(sidecar["seconds"])
