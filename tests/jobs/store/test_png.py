"""Images as files: whole or absent, with what they are in text chunks, and looked at before they count."""

import numpy as np
import pytest

from jobs.store.files import sha256
from jobs.store.png import probe, read_facts, write_image

PIXELS = np.random.default_rng(0).integers(0, 256, (1, 6, 10, 3), np.uint8)
FACTS = {"prompt": "ein Bär, 赤い球\nand 'more'", "seed": "7", "method": "auto"}


def test_an_image_keeps_every_pixel_and_says_what_it_is(tmp_path):
    from PIL import Image

    digest = write_image([PIXELS], tmp_path / "i.png", FACTS)
    assert digest == sha256(tmp_path / "i.png") and probe(tmp_path / "i.png") == (6, 10)
    assert read_facts(tmp_path / "i.png") == FACTS
    with Image.open(tmp_path / "i.png") as image:
        assert np.array_equal(np.asarray(image), PIXELS[0])
    assert [path.name for path in tmp_path.iterdir()] == ["i.png"]


def test_half_a_character_is_written_as_a_question_mark(tmp_path):
    write_image([PIXELS], tmp_path / "i.png", {"prompt": "half \ud83d"})
    assert read_facts(tmp_path / "i.png") == {"prompt": "half ?"}


@pytest.mark.parametrize("frames", [[PIXELS, PIXELS], [PIXELS.astype(np.float32)], [PIXELS[..., :1]]])
def test_what_is_no_image_is_refused_and_leaves_nothing(tmp_path, frames):
    with pytest.raises(ValueError, match=r"an image must be uint8 \[1, H, W, 3\]"):
        write_image(frames, tmp_path / "i.png", FACTS)
    assert not list(tmp_path.iterdir())


def test_a_failure_of_the_frames_leaves_nothing(tmp_path):
    def frames():
        yield PIXELS
        raise RuntimeError("not finite")

    with pytest.raises(RuntimeError, match="not finite"):
        write_image(frames(), tmp_path / "i.png", FACTS)
    assert not list(tmp_path.iterdir())


def test_a_torn_or_foreign_file_does_not_decode(tmp_path):
    path = tmp_path / "i.png"
    write_image([PIXELS], path, FACTS)
    whole = path.read_bytes()
    for content in (whole[:-40], whole[: len(whole) // 2], b"", b"no image", whole.replace(b"IDAT", b"IDAX")):
        path.write_bytes(content)
        with pytest.raises(OSError, match="does not decode as an image"):
            probe(path)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        probe(path)
